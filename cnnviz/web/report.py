"""One image in one network, measured: `make_report` measures, `Report.save` writes a page of HTML.

    report = cnnviz.make_report(network, "cat.jpg")
    report.save("report.html")

Prediction, feature maps by depth, attribution, the most active channels and their feature visualizations. The network
is shown the same throughout: the center crop of its published preprocessing. How the page looks is in
`cnnviz.web.report_page`, what is measured and how in `cnnviz.web.report_findings`.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnviz.attribution.comparison import Watch
from cnnviz.attribution.explain import explain
from cnnviz.attribution.methods import DEFAULTS, method_named
from cnnviz.errors import OutputError, several
from cnnviz.files import whole_file
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network, check_network
from cnnviz.networks.predictions import predict
from cnnviz.networks.provenance import record
from cnnviz.pictures.reading import read_picture
from cnnviz.synthesis.settings import check_number
from cnnviz.web.report_findings import FIT, Findings, depths_of, edges_of, fired_at, refusals
from cnnviz.web.report_page import page

TOP, EXPLAINED, FIRED = 5, 3, 3  # classes that are named, and explained; depths whose channels are looked at closely
EXPLAINING = 0.3  # of the time a report takes


@dataclass(frozen=True, repr=False)
class Report(Findings):
    """One image in one network, and its page; the attributes are those of `Findings`."""

    def html(self) -> str:
        """The page: a document that holds its images and style and asks for nothing from elsewhere."""
        return page(self)

    def save(self, path: str | Path) -> Path:
        """Write the page.

        Raises:
            OutputError: if the ending is not .html, or the file cannot be written.
        """
        path = check_ending(Path(path))
        with whole_file(path) as file:
            file.write(self.html().encode())
        return path

    def __repr__(self) -> str:
        first, name = self.predictions[0], self.shown.names[0]
        return f"Report({name}, {self.network.name}: {first.label}, {first.text})"

    def _repr_html_(self) -> str:
        frame = 'sandbox title="report" style="width: 100%; height: 45rem; border: 0"'
        return f'<iframe srcdoc="{html.escape(self.html())}" {frame}></iframe>'


def make_report(
    network: Network,
    picture: str | Path,
    *,
    methods: Sequence[str] = DEFAULTS,
    filters: int = 9,
    steps: int | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Report:
    """Look at one image in one network from all sides.

    Most of the time goes into the images synthesized for `filters` channels at each of three depths.

    Args:
        picture: a file.
        methods: of `cnnviz.attribution.methods.METHODS`; those that would be wrong about the network are left out.
        filters: how many channels to look at closely at each depth; all of them if there are fewer.
        steps: of a synthesis; those of the preset "draft" by default.
        seed: of methods that draw random numbers, and of the synthesis.
        watch: called with what is being done, and the share of the whole that is done.

    Raises:
        PictureError: if the image cannot be read.
        ShapeError: if `filters` or `steps` is less than 1, or the network cannot take the image.
        UnknownNameError: if there is no such method.
        ModelError: if the network is no classifier, or its logits are not finite.
        LayerError: if it gives values that are not finite.
    """
    check_network(network)
    check_number("filters", filters)
    check_number("steps", 1 if steps is None else steps)
    names = list(dict.fromkeys(map(method_named, several(methods, str, "methods are given by name"))))
    opened, tell = read_picture(picture), watch or (lambda *_: None)  # once: the file may change meanwhile
    shown = show(network, opened, fit=FIT)
    predictions = tuple(predict(network, opened, top=TOP, fit=FIT))
    edges = edges_of(shown.images[0])
    depths = depths_of(network, shown, edges)
    refused, explanation = refusals(network, names), None
    if kept := [name for name in names if name not in refused]:
        watch_part = _part_of(tell, 0, EXPLAINING)
        explanation = explain(network, opened, methods=kept, top=EXPLAINED, fit=FIT, seed=seed, watch=watch_part)
    closely, fired = depths[-FIRED:], []
    for place, depth in enumerate(closely):
        start, end = (EXPLAINING + (1 - EXPLAINING) * (place + more) / len(closely) for more in (0, 1))
        fired.append(fired_at(depth, opened, filters, steps, seed, _part_of(tell, start, end)))
    settings = {"fit": FIT, "methods": names, "filters": filters, "steps": steps, "seed": seed}
    made = record(
        "report",
        network,
        settings=settings,
        picture=shown.names[0],
        sha256=shown.sha256,
        results={"probability": [prediction.probability or prediction.score for prediction in predictions]},
    )
    return Report(network, shown, predictions, edges, depths, explanation, refused, tuple(fired), made)


def check_ending(path: Path) -> Path:
    """The path of a page.

    Raises:
        OutputError: if it does not end in .html.
    """
    if path.suffix.lower() != ".html":
        raise OutputError(
            f"cannot write {path.name or path}: reports are HTML pages (.html); print one from the browser for a PDF."
        )
    return path


def _part_of(tell: Watch, start: float, end: float) -> Watch:
    """Tells of a part, from `start` to `end` of the whole."""
    return lambda text, share: tell(text, start + (end - start) * share)
