"""`cnnviz saliency`: why the class came out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnviz.attribution.methods import DEFAULT, METHODS, options_of
from cnnviz.cli import options, values
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import check_apart, check_npz, check_sheet, save_npz, sheet_file
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo, say_json

if TYPE_CHECKING:
    from cnnviz.attribution.explanations import Explanation

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
    """Pixels of a picture: 10,20,60,80."""
    try:
        left, top, right, bottom = map(int, text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no box such as 10,20,60,80 (left,top,right,bottom).") from None
    return left, top, right, bottom


@click.command(epilog=f"\b\nMethods (their options for --set):\n{_LISTED}")
@options.picture
@click.option("--class", "classes", multiple=True, help="A class by label, number or WordNet id; may be repeated.")
@click.option(
    "--top",
    type=options.AT_LEAST_ONE,
    default=1,
    show_default=True,
    help="The N most probable classes; of a region, those of most pixels.",
)
@click.option("--versus", help="A class to hold the others against.")
@options.methods(DEFAULT)
@click.option("--layer", help="For methods of a layer; the last one with feature maps by default.")
@click.option("--layers", help="Of class activation maps: the mean over several layers, separated by commas.")
@click.option(
    "--target-box", "box", type=_box, metavar="X0,Y0,X1,Y1", help="Of segmentation: a part of IMAGE, in its pixels."
)
@click.option(
    "--target-mask", "mask", type=options.A_FILE, help="The same as a picture: what is white, or opaque, of it."
)
@click.option("--baseline", default="mean", show_default=True, help="mean, black, white, blur or an image's path.")
@click.option("--set", "texts", multiple=True, metavar="OPTION=NUMBER", help="An option of a method; may be repeated.")
@click.option(
    "--rise", is_flag=True, help="Begin insertion from the blurred image, as RISE does (Petsiuk et al. 2018)."
)
@click.option(
    "--sanity", is_flag=True, help="Compare with maps of the network randomized from the top (Adebayo et al. 2018)."
)
@click.option(
    "--infidelity", is_flag=True, help="Measure how badly the map predicts what noise does (Yeh et al. 2019)."
)
@click.option("--sensitivity", is_flag=True, help="Measure the max-sensitivity to small noise (Yeh et al. 2019).")
@click.option(
    "--precise", is_flag=True, help="Integrated gradients complete to 1 %, evidence in all 64 steps; takes longer."
)
@options.size()
@options.fit("whole")
@options.draws("Of methods that draw random numbers.")
@options.output
@click.option("--overlay", type=options.NEW_FILE, help="Also write the first overlay alone.")
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
    output: Path | None,
    overlay: Path | None,
    save_arrays: Path | None,
    chosen: Chosen,
    as_json: bool,
    quiet: bool,
    **checked: bool,
) -> None:
    """Show which pixels of IMAGE speak for the class that came out, and how far to believe it.

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
    for path, option in ((output, "-o"), (overlay, "--overlay")):
        check_sheet(path)
        if path is not None:
            check_apart(path, picture, option)
            if mask is not None:
                check_apart(path, mask, option)
    if output is not None and overlay is not None and output.resolve() == overlay.resolve():
        raise click.UsageError(f"the sheet and the overlay cannot both be {output}.")
    check_npz(save_arrays)
    if classes and top > 1:
        raise click.UsageError("--class and --top both choose classes; give one of them.")
    if layer is not None and layers is not None:
        raise click.UsageError("--layer and --layers both choose layers; give one of them.")
    if box is not None and mask is not None:
        raise click.UsageError("--target-box and --target-mask both choose a region; give one of them.")
    from cnnviz.attribution.explain import explain
    from cnnviz.attribution.regions import read_mask

    network = chosen.load(classes=True, quiet=quiet)
    with waiting("explaining ...", quiet=quiet) as say:
        explanation = explain(
            network,
            picture,
            list(classes) or None,
            methods=methods,
            top=top,
            versus=versus,
            layer=layer if layers is None else values.names(layers),
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
    file = explanation.save(output or sheet_file(picture.stem, network.name, "saliency"))
    if overlay is not None:
        explanation.overlay().save(overlay)
    if save_arrays is not None:
        save_npz(save_arrays, _arrays(explanation))
    if as_json:
        region = {"region": explanation.region} if explanation.region else {}
        say_json({"file": str(file), "baseline": explanation.baseline, **region, "attributions": explanation.rows()})
    elif not quiet:
        for line in _summary(explanation, file):
            echo(line)


def _arrays(explanation: "Explanation") -> dict[str, Any]:
    values = {
        f"{attribution.method}/{attribution.target.index}": attribution.values.numpy()
        for attribution in explanation.attributions
    }
    return {"image": explanation.shown.images[0].cpu().numpy()} | values


def _summary(explanation: "Explanation", file: Path) -> list[str]:
    from cnnviz.networks.predictions import said

    classes = {
        attribution.target: f"{explanation.label(attribution)} ({said(attribution.probability, attribution.score)})"
        for attribution in explanation.attributions
    }
    titles = dict.fromkeys(METHODS[attribution.method].title for attribution in explanation.attributions)
    flat = [
        f"{METHODS[attribution.method].title} for {explanation.label(attribution)}"
        for attribution in explanation.attributions
        if attribution.flat
    ]
    lines = [f"{file}: why {', '.join(classes.values())}, by {', '.join(titles)}"]
    if explanation.region:
        lines.append(f"scores are sums over a region: {explanation.region}")
    if flat:
        lines.append(f"flat, since no pixel matters: {', '.join(flat)}")
    left_out = [method.title for name, method in METHODS.items() if method.title not in titles]
    if len(titles) > 1 and explanation.settings["asked"] == ["all"] and left_out:
        lines.append(f"left out, since captum would be wrong about this network: {', '.join(left_out)}")
    return lines
