"""The methods of attribution, captum's but for four class activation maps, and all that makes one right or refused.

A `Method` says what people call it, where it was published, what it costs, which options it has, within which bounds,
and what it needs of a network (`cnnviz.attribution.suitability` knows what each need means). `METHODS` holds them by
name, for the command line, the documentation and the tests alike. To add one, write a function here and give it an
entry; nothing else changes. Nothing heavy is imported before a method runs.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from cnnviz.attribution.cams import eigen_cam, grad_cam_plus_plus, layer_cam, score_cam
from cnnviz.attribution.cases import Case
from cnnviz.errors import ShapeError, UnknownNameError, choose, several

if TYPE_CHECKING:
    from torch import Tensor

COMPLETE_TO = 0.01  # of the difference of scores: how far integrated gradients may miss it
STEPS = (50, 100, 200, 400)  # of integrated gradients, until it is complete
QUICK_STEPS = 16  # of integrated gradients, for a look
CAPTUMS_OPTIONS = {"n_steps": "steps", "n_samples": "samples"}  # for people who know captum
LASSO, LASSO_OF_SPREAD = 0.01, 0.05  # LIME's alpha: captum's, and at most so much of the scores' standard deviation
ROUNDING = 1e-6  # of the largest score: variation that is none
LEAST_OVERLAPPING = 8  # images at a time, where parts of the steps overlap by one


def saliency(case: Case) -> "Tensor":
    from captum.attr import Saliency

    return Saliency(case.model).attribute(case.inputs, 0, abs=False)


def input_x_gradient(case: Case) -> "Tensor":
    from captum.attr import InputXGradient

    return InputXGradient(case.model).attribute(case.inputs, 0)


def integrated_gradients(case: Case) -> "Tensor":
    """Without a number of steps, as many as make it complete to 1 %, at most 400."""
    from captum.attr import IntegratedGradients

    integrated = IntegratedGradients(case.model)
    given = case.options["steps"]
    attempts = [int(given)] if given else list(STEPS)
    for steps in attempts:
        values, missed = integrated.attribute(
            case.inputs,
            case.baseline,
            0,
            n_steps=steps,
            internal_batch_size=case.batch,
            return_convergence_delta=True,
        )
        if abs(missed.item()) <= COMPLETE_TO * abs(values.sum().item() - missed.item()):
            break
    attribution: Tensor = values
    return attribution


def noise_tunnel(kind: str) -> "Callable[[Case], Tensor]":
    def run(case: Case) -> "Tensor":
        from captum.attr import NoiseTunnel, Saliency

        return NoiseTunnel(Saliency(case.model)).attribute(
            case.inputs,
            nt_type=kind,
            nt_samples=int(case.options["samples"]),
            nt_samples_batch_size=case.batch,
            stdevs=_noise(case),
            target=0,
            abs=False,
        )

    return run


def _noise(case: Case) -> float:
    """The standard deviation of noise that is given as a share of the image's own range."""
    span: float = (case.inputs.max() - case.inputs.min()).item()
    return case.options["noise"] * span


def guided_backprop(case: Case) -> "Tensor":
    from captum.attr import GuidedBackprop

    return GuidedBackprop(case.model).attribute(case.inputs, 0)


def deconvolution(case: Case) -> "Tensor":
    from captum.attr import Deconvolution

    return Deconvolution(case.model).attribute(case.inputs, 0)


def grad_cam(case: Case) -> "Tensor":
    from captum.attr import LayerGradCam

    assert case.layer is not None
    return LayerGradCam(case.model, case.layer).attribute(case.inputs, 0, relu_attributions=True)


def guided_grad_cam(case: Case) -> "Tensor":
    from captum.attr import GuidedGradCam

    assert case.layer is not None
    return GuidedGradCam(case.model, case.layer).attribute(case.inputs, 0, interpolate_mode="bilinear")


def gradient_x_activation(case: Case) -> "Tensor":
    from captum.attr import LayerGradientXActivation

    assert case.layer is not None
    return LayerGradientXActivation(case.model, case.layer).attribute(case.inputs, 0).sum(1, keepdim=True)


def conductance(case: Case) -> "Tensor":
    """Added up over the layer's channels.

    In parts that captum lets overlap by one step, so small ones would cost nearly twice the steps. The sum over the
    layer is the difference of scores only where all paths through the network meet in it.

    References:
        Dhamdhere et al. (2018), *How Important Is a Neuron?*
    """
    from captum.attr import LayerConductance

    assert case.layer is not None
    conductance = LayerConductance(case.model, case.layer)
    steps = int(case.options["steps"])
    values: Tensor = conductance.attribute(
        case.inputs, case.baseline, 0, n_steps=steps, internal_batch_size=max(case.batch, LEAST_OVERLAPPING)
    )
    return values.sum(1, keepdim=True)


def deeplift(case: Case) -> "Tensor":
    """captum's, but for max pools, of which its rule is not exact; see `cnnviz.attribution.rescaled_pools`."""
    from captum.attr import DeepLift

    from cnnviz.attribution.rescaled_pools import rescale_pools

    rescale_pools(case.model)
    return DeepLift(case.model).attribute(case.inputs, case.baseline, 0)


def gradient_shap(case: Case) -> "Tensor":
    """In parts of `batch` samples, so that memory does not grow with their number."""
    import torch
    from captum.attr import GradientShap

    samples, shap = int(case.options["samples"]), GradientShap(case.model)
    mean = torch.zeros_like(case.inputs)
    for start in range(0, samples, case.batch):
        size = min(case.batch, samples - start)
        part = shap.attribute(case.inputs, case.baseline, n_samples=size, stdevs=_noise(case), target=0)
        mean += part * (size / samples)
    return mean


def occlusion(case: Case) -> "Tensor":
    from captum.attr import Occlusion

    channels, height, width = case.inputs.shape[1:]
    window = int(case.options["window"] or max(1, round(min(height, width) / 7)))
    window = min(window, height, width)
    stride = int(case.options["stride"] or max(1, window // 2))
    return Occlusion(case.model).attribute(
        case.inputs,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
        baselines=case.baseline,
        target=0,
        perturbations_per_eval=case.batch,
    )


def feature_ablation(case: Case) -> "Tensor":
    from captum.attr import FeatureAblation

    return FeatureAblation(case.model).attribute(case.inputs, **_over_patches(case))


def lime(case: Case) -> "Tensor":
    """With captum's lasso, alpha 0.01, but for scores that vary so little that it would make everything zero.

    alpha is at most a twentieth of their standard deviation over the samples, so that small scores are explained as
    large ones are. Scores that vary by rounding only have nothing to explain and keep captum's alpha.

    References:
        Ribeiro et al. (2016), *"Why Should I Trust You?": Explaining the Predictions of Any Classifier*.
    """
    import torch
    from captum._utils.models.linear_model import SkLearnLasso
    from captum.attr import Lime

    class Lasso(SkLearnLasso):
        def fit(self, train_data: Any, **settings: Any) -> Any:
            scores = torch.cat([batch[1] for batch in train_data]).double()
            spread = scores.std(correction=0).item()
            if spread > ROUNDING * scores.abs().max().item():
                self.construct_kwargs["alpha"] = min(LASSO, LASSO_OF_SPREAD * spread)
            return super().fit(train_data, **settings)

    explained = Lime(case.model, interpretable_model=Lasso(alpha=LASSO))
    return explained.attribute(case.inputs, n_samples=int(case.options["samples"]), **_over_patches(case))


def kernel_shap(case: Case) -> "Tensor":
    from captum.attr import KernelShap

    return KernelShap(case.model).attribute(case.inputs, n_samples=int(case.options["samples"]), **_over_patches(case))


def _over_patches(case: Case) -> dict[str, Any]:
    """What methods that take patches away are told."""
    patches = case.patches(int(case.options["patches"])).expand(1, *case.inputs.shape[1:])
    settings = {"baselines": case.baseline, "feature_mask": patches, "target": 0}
    return settings | {"perturbations_per_eval": case.batch}


def lrp(case: Case) -> "Tensor":
    """The epsilon rule everywhere; on copies, for captum writes into the weights.

    What is held against another class is the difference of both attributions: captum would weigh each class by the
    difference of the scores instead of its own score.
    """
    import copy

    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule
    from torch import nn

    attributions = []
    for model in map(copy.deepcopy, case.model.by_class()):
        for part in model.modules():
            if isinstance(part, nn.Flatten | nn.Identity):
                part.rule = EpsilonRule()  # type: ignore[assignment] # captum knows no rule for what only reshapes
        attributions.append(LRP(model).attribute(case.inputs, 0))
    own, *other = attributions
    return own - other[0] if other else own


Cost = Literal["one pass", "dozens of passes", "hundreds of passes"]
Need = Literal["relu modules", "rescaled modules", "chain"]
CHECKS = ("curves", "rise", "sanity", "infidelity", "sensitivity")  # evidence that can be asked for; see `explain`


@dataclass(frozen=True)
class Option:
    """A number that a method takes.

    Attributes:
        default: None where the method chooses by itself.
        least, most: what it can be.
        whole: whether it is a whole number.
        quick: what `cnnviz.explain` takes where it need not be precise; None for the default.
        first: what a method tries first where it goes on until the result is good; None for the default.
    """

    default: float | None
    least: float = 1
    most: float = 100_000
    whole: bool = True
    quick: float | None = None
    first: float | None = None

    def check(self, name: str, value: float | None) -> None:
        """Notice a number that it cannot be.

        Raises:
            ShapeError: says what it can be.
        """
        if value is None and self.default is None:
            return
        number = value if isinstance(value, Real) else math.nan
        if not self.least <= number < math.inf or (self.whole and number != int(number)):
            wanted = f"a whole number of at least {self.least}" if self.whole else "greater than zero"
            raise ShapeError(f"{name} must be {wanted}, not {value!r}.")
        if number > self.most:
            raise ShapeError(f"{name} can be {self.most} at most, not {value:g}.")


def _steps(default: int | None, quick: int | None = None, first: int | None = None) -> Option:
    """captum weighs steps by a matrix of that many rows and columns."""
    return Option(default, most=4096, quick=quick, first=first)


def _share(default: float) -> Option:
    """Of the image's range, as a standard deviation."""
    return Option(default, least=1e-9, most=math.inf, whole=False)


@dataclass(frozen=True)
class Method:
    """A way to attribute a score to pixels.

    Attributes:
        title: its name for people.
        paper: where it was published.
        cost: how often the network runs, forwards and mostly backwards.
        run: (1, C, H, W) or, of a layer, (1, 1, H', W').
        signed: whether positive and negative values speak for and against the class; otherwise only size matters.
        options: by name.
        needs: what the network must be made of for captum to be right.
        baseline: whether it compares with a baseline.
        layer: whether it looks at a layer.
        cam: whether its maps are a layer's, weighted and unsigned, so that those of several layers have a mean.
        complete: whether its values promise to add up to the difference of scores between image and baseline; those of
            a layer only where all paths through the network meet in it.
        regions: for methods that give the effect of a whole region (a window, a superpixel) at each of its values, in
            every colour channel: the one that says what removing each region does.
        draws: whether it draws from the generators that the whole process shares, one thread at a time.
    """

    title: str
    paper: str
    cost: Cost
    run: "Callable[[Case], Tensor]"
    signed: bool
    options: Mapping[str, Option] = field(default_factory=dict)
    needs: Need | None = None
    baseline: bool = False
    layer: bool = False
    cam: bool = False
    complete: bool = False
    regions: "Callable[[Case], Tensor] | None" = None
    draws: bool = False

    @property
    def checks(self) -> tuple[str, ...]:
        """Those of `CHECKS` that make sense: infidelity is about values of pixels, not of a layer's positions."""
        return tuple(check for check in CHECKS if check != "infidelity" or not self.layer)


def _noisy(title: str, paper: str, kind: str) -> Method:
    """One of captum's ways to sum up the gradients of noisy images; 50 of them, as Smilkov et al. (2017) recommend."""
    options = {"samples": Option(50), "noise": _share(0.15)}
    return Method(title, paper, "dozens of passes", noise_tunnel(kind), False, options, draws=True)


METHODS: dict[str, Method] = {
    "saliency": Method("gradient (saliency)", "Simonyan et al. 2013", "one pass", saliency, False),
    "input-x-gradient": Method("input x gradient", "Shrikumar et al. 2016", "one pass", input_x_gradient, True),
    "integrated-gradients": Method(
        "integrated gradients",
        "Sundararajan et al. 2017",
        "dozens of passes",
        integrated_gradients,
        True,
        {"steps": _steps(None, QUICK_STEPS, STEPS[0])},
        baseline=True,
        complete=True,
    ),
    "smoothgrad": _noisy("SmoothGrad", "Smilkov et al. 2017", "smoothgrad"),
    "smoothgrad-squared": _noisy("SmoothGrad squared", "Hooker et al. 2019", "smoothgrad_sq"),
    "vargrad": _noisy("VarGrad", "Adebayo et al. 2018", "vargrad"),
    "guided-backprop": Method(
        "guided backpropagation",
        "Springenberg et al. 2014",
        "one pass",
        guided_backprop,
        False,
        needs="relu modules",
    ),
    "deconvolution": Method(
        "deconvolution", "Zeiler and Fergus 2014", "one pass", deconvolution, False, needs="relu modules"
    ),
    "grad-cam": Method("Grad-CAM", "Selvaraju et al. 2017", "one pass", grad_cam, False, layer=True, cam=True),
    "grad-cam++": Method(
        "Grad-CAM++", "Chattopadhay et al. 2018", "one pass", grad_cam_plus_plus, False, layer=True, cam=True
    ),
    "layer-cam": Method("Layer-CAM", "Jiang et al. 2021", "one pass", layer_cam, False, layer=True, cam=True),
    "score-cam": Method(
        "Score-CAM", "Wang et al. 2020", "hundreds of passes", score_cam, False, baseline=True, layer=True, cam=True
    ),
    "eigen-cam": Method(
        "Eigen-CAM (of no class)", "Muhammad and Yeasin 2020", "one pass", eigen_cam, False, layer=True, cam=True
    ),
    "guided-grad-cam": Method(
        "guided Grad-CAM",
        "Selvaraju et al. 2017",
        "one pass",
        guided_grad_cam,
        False,
        needs="relu modules",
        layer=True,
    ),
    "gradient-x-activation": Method(
        "gradient x activation", "Ancona et al. 2018", "one pass", gradient_x_activation, True, layer=True
    ),
    "conductance": Method(
        "layer conductance",
        "Dhamdhere et al. 2018",
        "dozens of passes",
        conductance,
        True,
        {"steps": _steps(50)},
        baseline=True,
        layer=True,
        complete=True,
    ),
    "deeplift": Method(
        "DeepLift",
        "Shrikumar et al. 2017",
        "one pass",
        deeplift,
        True,
        needs="rescaled modules",
        baseline=True,
        complete=True,
    ),
    "gradient-shap": Method(
        "GradientSHAP",
        "Lundberg and Lee 2017",
        "dozens of passes",
        gradient_shap,
        True,
        {"samples": Option(20), "noise": _share(0.1)},
        baseline=True,
        draws=True,
    ),
    "occlusion": Method(
        "occlusion",
        "Zeiler and Fergus 2014",
        "hundreds of passes",
        occlusion,
        True,
        {"window": Option(None), "stride": Option(None)},
        baseline=True,
        regions=occlusion,
    ),
    "feature-ablation": Method(
        "feature ablation (superpixels)",
        "Zeiler and Fergus 2014",
        "dozens of passes",
        feature_ablation,
        True,
        {"patches": Option(50, least=2)},
        baseline=True,
        regions=feature_ablation,
    ),
    "lime": Method(
        "LIME",
        "Ribeiro et al. 2016",
        "hundreds of passes",
        lime,
        True,
        {"patches": Option(50, least=2), "samples": Option(200)},
        baseline=True,
        regions=feature_ablation,
        draws=True,
    ),
    "kernel-shap": Method(
        "KernelSHAP",
        "Lundberg and Lee 2017",
        "hundreds of passes",
        kernel_shap,
        True,
        {"patches": Option(50, least=2), "samples": Option(200)},
        baseline=True,
        regions=feature_ablation,
        draws=True,
    ),
    "lrp": Method("layer-wise relevance propagation", "Bach et al. 2015", "one pass", lrp, True, needs="chain"),
}
DEFAULT = "integrated-gradients"
DEFAULTS = ("grad-cam", DEFAULT)  # side by side, where a class is explained


def method_named(name: str) -> str:
    """The key in `METHODS` for a name in any case, with or without dashes, underscores or blanks: GradCAM.

    Raises:
        UnknownNameError: if there is none; says which are close.
    """
    known = {_letters(key): key for key in METHODS}
    return known.get(_letters(name)) or choose(name, METHODS, "method")


def _letters(name: str) -> str:
    return re.sub(r"[-_\s]", "", str(name).lower())


def methods_named(methods: str | Sequence[str]) -> list[str] | None:
    """Keys in `METHODS`, each once, for one name or several; None for "all", which are those that suit a network.

    Raises:
        UnknownNameError: if there is no such method, or they are not given by name.
    """
    names = several(methods, str, "methods are given by name")
    return None if names == ["all"] else list(dict.fromkeys(map(method_named, names)))


def options_of(methods: Iterable[str]) -> list[str]:
    """The names of the options that these methods have, one or the other, in order."""
    return sorted({option for name in methods for option in METHODS[name].options})


def by_own_names(options: Mapping[str, float | None]) -> dict[str, float | None]:
    """Options, those that have captum's names by their names here: ``n_steps=100`` as ``steps=100``.

    Raises:
        UnknownNameError: if one is given by both names.
    """
    for captums, own in CAPTUMS_OPTIONS.items():
        if captums in options and own in options:
            raise UnknownNameError(f"{captums} and {own} are the same option; give one of them.")
    return {CAPTUMS_OPTIONS.get(option, option): value for option, value in options.items()}


def settings_of(name: str, options: Mapping[str, float | None]) -> dict[str, float | None]:
    """The value of every option of one method: the given one, or its default.

    Raises:
        UnknownNameError: if it has no such option; says which it has.
        ShapeError: if a value is out of bounds.
    """
    own = METHODS[name].options
    for option, value in options.items():
        if option not in own:
            known = f"its options are {', '.join(own)}" if own else "it has no options"
            raise UnknownNameError(f"{name} has no option {option!r}; {known}.")
        own[option].check(option, value)
    return {option: options.get(option, each.default) for option, each in own.items()}


def quick_options(name: str) -> dict[str, float | None]:
    """Options with which a method takes less time than by default."""
    return {option: each.quick for option, each in METHODS[name].options.items() if each.quick is not None}


def fixed_options(name: str) -> dict[str, Any]:
    """Options with which a method takes the same time for every class and network, however good the result."""
    return {option: each.first for option, each in METHODS[name].options.items() if each.first is not None}


def share_out(options: Mapping[str, float | None], methods: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """By method, those of the options that it has.

    Raises:
        UnknownNameError: if none of them has one; says which they have.
        ShapeError: if a value is out of bounds.
    """
    known = options_of(methods)
    for option in options:
        if option not in known:
            theirs = f"they have {', '.join(known)}" if known else "they have none"
            raise UnknownNameError(f"none of {', '.join(methods)} has an option {option!r}; {theirs}.")
    shares = {name: {own: options[own] for own in METHODS[name].options if own in options} for name in methods}
    for name, share in shares.items():
        settings_of(name, share)
    return shares
