"""`cnnviz saliency`: attribution of a class to the pixels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnviz.attribution.methods import DEFAULTS, METHODS, options_of
from cnnviz.cli import completion, figure_options, options, values
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import Target, about, check_apart, check_npz, check_sheet, named, save_npz
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo, say_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnviz.attribution.explanations import Attribution, Explanation
    from cnnviz.networks.network import Network
    from cnnviz.pictures.sheets import Layout

_LISTED = "\n".join(
    f"  {name:21} {method.paper}, {method.cost}" + (f" ({', '.join(method.options)})" if method.options else "")
    for name, method in METHODS.items()
)


def settings(texts: tuple[str, ...]) -> dict[str, float]:
    """Options of methods: steps=100."""
    values, known = {}, options_of(METHODS)
    for text in texts:
        name, _, value = text.partition("=")
        try:
            values[name] = float(value)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not like steps=100.", param_hint="--set") from None
        if name not in known:
            raise click.BadParameter(f"no method has {name!r}; they have {', '.join(known)}.", param_hint="--set")
    return values


def _box(text: str) -> tuple[int, ...]:
    """Pixels of an image: 10,20,60,80."""
    try:
        left, top, right, bottom = map(int, text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no box such as 10,20,60,80 (left,top,right,bottom).") from None
    return left, top, right, bottom


@command(epilog=f"\b\nMethods (their options for --set):\n{_LISTED}")
@options.picture
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="CLASS",
    help="A class by label, number or WordNet id; may be repeated.",
)
@click.option(
    "--top",
    type=options.AT_LEAST_ONE,
    metavar="N",
    default=1,
    help="The N most probable classes; in a region, those of most pixels.",
)
@click.option("--versus", metavar="CLASS", help="A class to compare the others with.")
@options.methods(",".join(DEFAULTS))
@options.layer("A layer, for class activation maps and methods of a layer. Default: the last one with feature maps.")
@click.option(
    "--layers",
    metavar="LAYER,...",
    help="The mean of class activation maps over several layers, separated by commas.",
    shell_complete=completion.layers,
)
@click.option(
    "--target-box", "box", type=_box, metavar="X0,Y0,X1,Y1", help="A region of IMAGE in its pixels (segmentation)."
)
@click.option(
    "--target-mask",
    "mask",
    type=options.A_FILE,
    help="A region as an image: its white, or opaque, part (segmentation).",
)
@click.option("--baseline", metavar="BASELINE", default="mean", help="mean, black, white, blur or an image's path.")
@click.option("--set", "texts", multiple=True, metavar="OPTION=NUMBER", help="An option of a method; may be repeated.")
@click.option("--rise", is_flag=True, help="Insertion starts from the blurred image, as in RISE (Petsiuk et al. 2018).")
@click.option(
    "--sanity",
    is_flag=True,
    help="Sanity check: compare with the maps of the randomized network (Adebayo et al. 2018).",
)
@click.option("--infidelity", is_flag=True, help="Measure the infidelity under noise (Yeh et al. 2019).")
@click.option("--sensitivity", is_flag=True, help="Measure the max-sensitivity under small noise (Yeh et al. 2019).")
@click.option(
    "--precise", is_flag=True, help="Integrated gradients complete to 1 %, evidence in all 64 steps; takes longer."
)
@options.size()
@options.fit
@options.draws()
@options.output
@click.option("--overlay", type=options.NEW_FILE, help="Also write the first overlay alone.")
@figure_options.look
@figure_options.layout
@options.arrays
@options.network
@options.json
@options.quiet
def saliency(
    picture: Path,
    classes: tuple[str, ...],
    top: int,
    versus: str | None,
    methods: list[str],
    layer: str | None,
    layers: str | None,
    box: tuple[int, ...] | None,
    mask: Path | None,
    baseline: str,
    texts: tuple[str, ...],
    precise: bool,
    size: int | None,
    fit: Any,
    seed: int,
    target: Target,
    overlay: Path | None,
    look: dict[str, Any],
    layout: "Layout",
    save_arrays: Path | None,
    chosen: Chosen,
    as_json: bool,
    quiet: bool,
    **checked: bool,
) -> None:
    """Attribution: which pixels of IMAGE increase or decrease the score of a class, with evidence.

    Beneath each map stand its evidence and, in brackets, its baselines: deletion and insertion AUC, in up to 64 steps
    in the map's order, against random orders (mean and standard deviation of ten); with --precise, in all 64 steps, and
    against the order from the centre outwards too.

    \b
    Example:
      cnnviz saliency cat.jpg
      cnnviz saliency cat.jpg --method grad-cam,occlusion --top 3 -o why.png
      cnnviz saliency cat.jpg --class tabby --versus "Egyptian cat"
      cnnviz saliency cat.jpg --model net.py:unet --input-size 256 --target-box 40,20,180,160
    """
    method_options = settings(texts)
    images = [path for path in (picture, mask) if path is not None]
    target.check(*images)
    if overlay is not None:
        check_sheet(overlay)
        for given in images:
            check_apart(overlay, given, "--overlay")
        if target.folder is None and target.file().resolve() == overlay.resolve():
            raise click.UsageError(f"the sheet and the overlay cannot both be {target.file()}.")
    check_npz(save_arrays)
    if classes and top > 1:
        raise click.UsageError("--class and --top both choose classes; give one of them.")
    if layer is not None and layers is not None:
        raise click.UsageError("--layer and --layers both choose layers; give one of them.")
    if box is not None and mask is not None:
        raise click.UsageError("--target-box and --target-mask both choose a region; give one of them.")
    from cnnviz.attribution.explain import explain
    from cnnviz.attribution.regions import read_mask
    from cnnviz.pictures.colours import colour_map

    if "cmap" in look:
        colour_map(look["cmap"])
    usual = methods == list(DEFAULTS)
    network = chosen.load(classes=True, quiet=quiet)
    with waiting("explaining ...", quiet=quiet) as say:
        explanation = explain(
            network,
            picture,
            list(classes) or None,
            methods=None if usual else methods,
            top=top,
            versus=versus,
            layer=_layers(network, layer, layers),
            region=box if mask is None else read_mask(mask),
            baseline=baseline,
            fit=fit,
            size=size,
            seed=seed,
            checks=["curves", *(name for name, wanted in checked.items() if wanted)],
            precise=precise,
            watch=say,
            **method_options,
        )
    parts = [] if usual else ["_".join(methods)[:60]]
    file = target.save(explanation.sheet(**look, **layout), target.file(picture.stem, network.name, "saliency", *parts))
    if overlay is not None:
        target.save(explanation.overlay(**look), overlay)
    if save_arrays is not None:
        save_npz(target.free(save_arrays), _arrays(explanation))
    if as_json:
        region = {"region": explanation.region} if explanation.region else {}
        image = about(picture, explanation.shown.sha256) | {"network": named(network), "fit": fit}
        result = {"baseline": explanation.baseline, **region, "attributions": explanation.rows()}
        say_json({"file": str(file)} | image | result)
    elif not quiet:
        for line in _summary(explanation, file):
            echo(line)


def _layers(network: "Network", layer: str | None, listed: str | None) -> str | list[str] | None:
    """The layer, or the layers, asked for; None where none is."""
    if listed is not None:
        return [network.listed(name) for name in values.names(listed)]
    return None if layer is None else network.listed(layer)


def _arrays(explanation: "Explanation") -> dict[str, Any]:
    values = {
        f"{attribution.method}/{attribution.target.index}": attribution.values.numpy()
        for attribution in explanation.attributions
    }
    return {"image": explanation.shown.images[0].cpu().numpy()} | values


def _summary(explanation: "Explanation", file: Path) -> list[str]:
    classes = {attribution.target: explanation.described(attribution) for attribution in explanation.attributions}
    titles = dict.fromkeys(METHODS[attribution.method].title for attribution in explanation.attributions)
    flat = _named(explanation, lambda attribution: attribution.flat)
    chance = _named(explanation, lambda attribution: attribution.evidence.better_than_random is False)
    lines = [f"{file}: Attribution: {', '.join(classes.values())}, by {', '.join(titles)}"]
    if explanation.region:
        lines.append(f"scores are sums over a region: {explanation.region}")
    if chance:
        lines.append(f"no better than chance: {chance}")
    if flat:
        lines.append(f"flat, since no pixel matters: {flat}")
    left_out = [method.title for name, method in METHODS.items() if method.title not in titles]
    if len(titles) > 1 and explanation.settings["asked"] == ["all"] and left_out:
        lines.append(f"left out, since captum would be wrong about this network: {', '.join(left_out)}")
    return lines


def _named(explanation: "Explanation", chosen: "Callable[[Attribution], bool]") -> str:
    """The methods and classes of those attributions that are chosen."""
    return ", ".join(
        f"{METHODS[attribution.method].title} for {explanation.label(attribution)}"
        for attribution in explanation.attributions
        if chosen(attribution)
    )
