"""`cnnviz saliency`: attribution of a class to the pixels."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cnnviz.attribution.methods import CAPTUMS_OPTIONS, DEFAULTS, METHODS, by_own_names, options_of
from cnnviz.cli import completion, figure_options, options, values
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import Target, about, array_name, check_apart, check_npz, check_sheet, named, save_npz
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo, say_json

if TYPE_CHECKING:
    from cnnviz.attribution.explanations import Attribution, Explanation
    from cnnviz.attribution.means import MeanAttribution
    from cnnviz.attribution.regions import Region
    from cnnviz.networks.network import Network
    from cnnviz.pictures.sheets import Layout

_LISTED = "\n".join(
    f"  {name:21} {method.paper}, {method.cost}" + (f" ({', '.join(method.options)})" if method.options else "")
    for name, method in METHODS.items()
)


def settings(texts: tuple[str, ...]) -> dict[str, float | None]:
    """Options of methods: steps=100, which captum calls n_steps."""
    values: dict[str, float | None] = {}
    known = options_of(METHODS)
    for text in texts:
        name, _, value = text.partition("=")
        try:
            values[name] = float(value)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not like steps=100.", param_hint="--set") from None
        if name not in known and name not in CAPTUMS_OPTIONS:
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
@click.argument("paths", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
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
@click.option("--mean-map", is_flag=True, help="Also the mean over the images, of one class or of each image's own.")
@options.size()
@options.fit
@options.seed
@options.output
@click.option("--overlay", type=options.NEW_FILE, help="Also write the first overlay alone, of one image.")
@figure_options.look
@figure_options.layout
@options.arrays
@options.network
@options.json
@options.quiet
@click.pass_context
def saliency(
    context: click.Context,
    /,
    paths: tuple[Path, ...],
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
    mean_map: bool,
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

    A sheet for each IMAGE; a folder stands for the images in it, and in the folders in it. One that cannot be read is
    left out, with exit status 1 at the end.

    Beneath each map stand its deletion and insertion AUC, in up to 64 steps in the map's order; in brackets, the same
    in random orders (mean and standard deviation of ten); and whether the map is better than those, no better or worse.
    With --precise all 64 steps are taken, and the order from the centre outwards is given too.

    \b
    Example:
      cnnviz saliency cat.jpg
      cnnviz saliency cat.jpg --method grad-cam,occlusion --top 3 -o why.png
      cnnviz saliency photographs --class tabby --mean-map -o maps/
      cnnviz saliency cat.jpg --class tabby --versus "Egyptian cat"
      cnnviz saliency cat.jpg --model net.py:unet --input-size 256 --target-box 40,20,180,160
    """
    method_options = by_own_names(settings(texts))
    files = _images(paths)
    several = files != list(paths) or len(files) > 1
    target.check(*files, *([] if mask is None else [mask]))
    if overlay is not None:
        _check_overlay(overlay, target, [*files, *([] if mask is None else [mask])])
    check_npz(save_arrays)
    if classes and top > 1:
        raise click.UsageError("--class and --top both choose classes; give one of them.")
    if layer is not None and layers is not None:
        raise click.UsageError("--layer and --layers both choose layers; give one of them.")
    if box is not None and mask is not None:
        raise click.UsageError("--target-box and --target-mask both choose a region; give one of them.")
    if overlay is not None and several:
        raise click.UsageError("--overlay is of one image; leave it out, or give one image.")
    if mean_map and not several:
        raise click.UsageError("--mean-map is over several images; give more than one, or a folder.")
    if mean_map and top > 1:
        raise click.UsageError(
            "--mean-map is of each image's most probable class, or those of --class; leave out --top."
        )
    from cnnviz.attribution.explain import explain
    from cnnviz.attribution.means import mean_attribution
    from cnnviz.pictures.colours import colour_map

    if "cmap" in look:
        colour_map(look["cmap"])
    usual = context.get_parameter_source("methods") is ParameterSource.DEFAULT
    network = chosen.load(classes=True, quiet=quiet)
    explained = partial(
        explain,
        network,
        classes=list(classes) or None,
        methods=None if usual else methods,
        top=top,
        versus=versus,
        layer=_layers(network, layer, layers),
        region=_region(network, box, mask),
        baseline=baseline,
        fit=fit,
        size=size,
        seed=seed,
        checks=["curves", *(name for name, wanted in checked.items() if wanted)],
        precise=precise,
        **method_options,
    )
    parts = [network.name, "saliency", *([] if usual else ["_".join(methods)[:60]])]
    sheets = {picture: target.file(picture.stem, *parts) for picture in files}
    results = _Results(
        target, look | layout, several=several, keeps_arrays=save_arrays is not None, as_json=as_json, quiet=quiet
    )
    target.check_distinct(sheets.items())
    explanations = results.of_each(sheets, explained)
    if mean_map:
        means = mean_attribution(explanations)
        results.add_mean(means, target.file(f"mean of {len(means.images)}", *parts))
    for explanation in explanations:
        if overlay is not None:
            target.save(explanation.overlay(**look), overlay)
    if save_arrays is not None:
        save_npz(target.free(save_arrays), results.arrays)
    if as_json:
        say_json(results.as_object(network, fit))
    if results.left_out:
        context.exit(1)


def _images(paths: tuple[Path, ...]) -> list[Path]:
    """The images that are named, each once, and those in folders."""
    from cnnviz.pictures.reading import picture_files

    listed = (picture_files(path) if path.is_dir() else [path] for path in paths)
    return list(dict.fromkeys(picture for pictures in listed for picture in pictures))


def _check_overlay(overlay: Path, target: Target, images: list[Path]) -> None:
    check_sheet(overlay)
    for given in images:
        check_apart(overlay, given, "--overlay")
    if target.folder is None and target.file().resolve() == overlay.resolve():
        raise click.UsageError(f"the sheet and the overlay cannot both be {target.file()}.")


def _region(network: "Network", box: tuple[int, ...] | None, mask: Path | None) -> "Region | None":
    """The region asked for; None where none is."""
    from cnnviz.attribution.regions import NO_MAPS, read_mask, segments

    region = box if mask is None else read_mask(mask)
    if region is not None and not segments(network):
        raise click.UsageError(NO_MAPS)
    return region


@dataclass
class _Results:
    """What comes of the images, and where it goes.

    Attributes:
        look: of the sheets, and their layout.
        several: whether there may be more images than one.
        keeps_arrays: whether numbers will be saved; of a large folder they are many.
        rows: in JSON, one for each image.
        arrays: by name.
        left_out: images that could not be read, and why.
        mean: in JSON.
    """

    target: Target
    look: Mapping[str, Any]
    several: bool
    keeps_arrays: bool
    as_json: bool
    quiet: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)
    mean: dict[str, Any] = field(default_factory=dict)

    def of_each(self, sheets: Mapping[Path, Path], explained: "Callable[..., Explanation]") -> "Iterator[Explanation]":
        """The explanation of each image, once its sheet is written."""
        from cnnviz.errors import PictureError

        for picture, file in sheets.items():
            try:
                with waiting("explaining ...", quiet=self.quiet) as say:
                    explanation = explained(picture=picture, watch=say)
            except PictureError as error:
                if not self.several:
                    raise
                echo(f"{picture} is left out: {error}", err=True)
                self.left_out.append({"image": str(picture), "why": str(error)})
                continue
            self._add(picture, explanation, self.target.save(explanation.sheet(**self.look), file))
            yield explanation

    def _add(self, picture: Path, explanation: "Explanation", file: Path) -> None:
        kept = _arrays(explanation) if self.keeps_arrays else {}
        self.arrays |= {array_name(picture, name, several=self.several): array for name, array in kept.items()}
        region = {"region": explanation.region} if explanation.region else {}
        image = about(picture, explanation.shown.sha256) | {"network": named(explanation.network)}
        fit = {"fit": explanation.shown.settings["fit"]}
        result = {"baseline": explanation.baseline, **region, "attributions": explanation.rows()}
        self.rows.append({"file": str(file)} | image | fit | result)
        self._say(_summary(explanation, file))

    def add_mean(self, mean: "MeanAttribution", file: Path) -> None:
        """Write the sheet of the mean."""
        look = {name: value for name, value in self.look.items() if name != "alpha"}  # there is nothing beneath it
        file = self.target.save(mean.sheet(**look), file)
        for part in mean.maps:
            index = "" if part.target is None else f".{part.target.index}"
            self.arrays[f"mean.{part.method}{index}"] = part.heat.numpy()
        self.mean = {"mean": {"file": str(file), "images": len(mean.images), "attributions": mean.rows()}}
        self._say([f"{file}: Attribution: {mean.title}"])

    def as_object(self, network: "Network", fit: str) -> dict[str, Any]:
        """All of it in JSON: of one image its own row."""
        if not self.several:
            return self.rows[0]
        left_out = {"unreadable": self.left_out} if self.left_out else {}
        return {"network": named(network), "fit": fit, "images": self.rows, **self.mean, **left_out}

    def _say(self, lines: list[str]) -> None:
        if not (self.quiet or self.as_json):
            for line in lines:
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
    for place, curve in enumerate(("deletion", "insertion")):
        if worse := _named(explanation, partial(_worse, place)):
            lines.append(f"{curve} AUC worse than random: {worse}")
    if inapplicable := _named(explanation, lambda attribution: bool(attribution.evidence.inapplicable)):
        lines.append(f"infidelity is not defined for a layer's maps: {inapplicable}")
    if flat:
        lines.append(f"flat, no pixel above another: {flat}")
    left_out = [method.title for name, method in METHODS.items() if method.title not in titles]
    if len(titles) > 1 and explanation.settings["asked"] == ["all"] and left_out:
        lines.append(f"left out, since captum would be wrong about this network: {', '.join(left_out)}")
    return lines


def _worse(place: int, attribution: "Attribution") -> bool:
    """Whether its deletion (0) or insertion (1) is worse than in random orders."""
    standings = attribution.evidence.standings
    return standings is not None and standings[place] == "worse"


def _named(explanation: "Explanation", chosen: "Callable[[Attribution], bool]") -> str:
    """The methods and classes of those attributions that are chosen."""
    return ", ".join(
        f"{METHODS[attribution.method].title} for {explanation.label(attribution)}"
        for attribution in explanation.attributions
        if chosen(attribution)
    )
