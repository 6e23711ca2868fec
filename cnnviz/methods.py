"""The methods of attribution, every one of them captum's.

A `Method` says what people call it, where it was published, what it costs, which options it has and what it needs of a
network; `METHODS` holds them by name, for the command line, the documentation and the tests alike. To add one, write a
function in `cnnviz.captumcalls` and give it an entry. Nothing heavy is imported before a method runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cnnviz import captumcalls
from cnnviz.captumcalls import Case

if TYPE_CHECKING:
    from torch import Tensor

Cost = Literal["one pass", "dozens of passes", "hundreds of passes"]
Need = Literal["relu modules", "rescaled modules", "chain"]


@dataclass(frozen=True)
class Method:
    """A way to attribute a score to pixels.

    Attributes:
        title: its name for people.
        paper: where it was published.
        cost: how often the network runs, forwards and mostly backwards.
        run: (1, C, H, W) or, of a layer, (1, 1, H', W').
        signed: whether positive and negative values speak for and against the class; otherwise only size matters.
        options: names and defaults.
        needs: what the network must be made of for captum to be right.
        baseline: whether it compares with a baseline.
        layer: whether it looks at a layer.
        complete: whether its values promise to add up to the difference of scores between image and baseline.
    """

    title: str
    paper: str
    cost: Cost
    run: "Callable[[Case], Tensor]"
    signed: bool
    options: Mapping[str, float | None] = field(default_factory=dict)
    needs: Need | None = None
    baseline: bool = False
    layer: bool = False
    complete: bool = False


METHODS: dict[str, Method] = {
    "saliency": Method("gradient (saliency)", "Simonyan et al. 2013", "one pass", captumcalls.saliency, False),
    "input-x-gradient": Method(
        "input x gradient", "Shrikumar et al. 2016", "one pass", captumcalls.input_x_gradient, True
    ),
    "integrated-gradients": Method(
        "integrated gradients",
        "Sundararajan et al. 2017",
        "dozens of passes",
        captumcalls.integrated_gradients,
        True,
        {"steps": None},
        baseline=True,
        complete=True,
    ),
    "smoothgrad": Method(
        "SmoothGrad",
        "Smilkov et al. 2017",
        "dozens of passes",
        captumcalls.noise_tunnel("smoothgrad"),
        False,
        {"samples": 25, "noise": 0.15},
    ),
    "smoothgrad-squared": Method(
        "SmoothGrad squared",
        "Hooker et al. 2019",
        "dozens of passes",
        captumcalls.noise_tunnel("smoothgrad_sq"),
        False,
        {"samples": 25, "noise": 0.15},
    ),
    "vargrad": Method(
        "VarGrad",
        "Adebayo et al. 2018",
        "dozens of passes",
        captumcalls.noise_tunnel("vargrad"),
        False,
        {"samples": 25, "noise": 0.15},
    ),
    "guided-backprop": Method(
        "guided backpropagation",
        "Springenberg et al. 2014",
        "one pass",
        captumcalls.guided_backprop,
        False,
        needs="relu modules",
    ),
    "deconvolution": Method(
        "deconvolution", "Zeiler and Fergus 2014", "one pass", captumcalls.deconvolution, False, needs="relu modules"
    ),
    "grad-cam": Method("Grad-CAM", "Selvaraju et al. 2017", "one pass", captumcalls.grad_cam, False, layer=True),
    "guided-grad-cam": Method(
        "guided Grad-CAM",
        "Selvaraju et al. 2017",
        "one pass",
        captumcalls.guided_grad_cam,
        False,
        needs="relu modules",
        layer=True,
    ),
    "gradient-x-activation": Method(
        "gradient x activation", "Ancona et al. 2018", "one pass", captumcalls.gradient_x_activation, True, layer=True
    ),
    "conductance": Method(
        "layer conductance",
        "Dhamdhere et al. 2018",
        "dozens of passes",
        captumcalls.conductance,
        True,
        {"steps": 50},
        baseline=True,
        layer=True,
        complete=True,
    ),
    "deeplift": Method(
        "DeepLift",
        "Shrikumar et al. 2017",
        "one pass",
        captumcalls.deeplift,
        True,
        needs="rescaled modules",
        baseline=True,
        complete=True,
    ),
    "gradient-shap": Method(
        "GradientSHAP",
        "Lundberg and Lee 2017",
        "dozens of passes",
        captumcalls.gradient_shap,
        True,
        {"samples": 20, "noise": 0.1},
        baseline=True,
    ),
    "occlusion": Method(
        "occlusion",
        "Zeiler and Fergus 2014",
        "hundreds of passes",
        captumcalls.occlusion,
        True,
        {"window": None, "stride": None},
        baseline=True,
    ),
    "feature-ablation": Method(
        "ablation of patches",
        "Zeiler and Fergus 2014",
        "dozens of passes",
        captumcalls.feature_ablation,
        True,
        {"patches": 50},
        baseline=True,
    ),
    "lime": Method(
        "LIME",
        "Ribeiro et al. 2016",
        "hundreds of passes",
        captumcalls.lime,
        True,
        {"patches": 50, "samples": 200},
        baseline=True,
    ),
    "kernel-shap": Method(
        "KernelSHAP",
        "Lundberg and Lee 2017",
        "hundreds of passes",
        captumcalls.kernel_shap,
        True,
        {"patches": 50, "samples": 200},
        baseline=True,
    ),
    "lrp": Method(
        "layer-wise relevance propagation", "Bach et al. 2015", "one pass", captumcalls.lrp, True, needs="chain"
    ),
}
DEFAULT = "integrated-gradients"
