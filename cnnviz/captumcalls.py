"""captum, called: a function for each method of attribution, from a `Case` to a tensor.

captum is imported when a method runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

COMPLETE_TO = 0.01  # of the difference of scores: how far integrated gradients may miss it for the predicted class
STEPS = (50, 100, 200, 400)  # of integrated gradients, until it is complete
LEAST_OVERLAPPING = 8  # images at a time, where parts of the steps overlap by one


@dataclass(frozen=True)
class Case:
    """One image to explain, and all that a method may want to know.

    Attributes:
        model: normalised images (N, C, H, W) to scores (N, 1), float32; its leaf modules are the network's.
        inputs: (1, C, H, W), normalised.
        baseline: (1, C, H, W), normalised: what stands for nothing to be seen.
        patches: gives (H, W), int64: for each pixel the number of its patch; so many patches as asked for.
        layer: the module that methods of a layer look at.
        batch: images the network sees at a time.
        predicted: whether the score is the logit of the class that the network finds most probable.
        options: the method's, by name.
    """

    model: "nn.Module"
    inputs: "Tensor"
    baseline: "Tensor"
    patches: "Callable[[int], Tensor]"
    layer: "nn.Module | None"
    batch: int
    predicted: "Callable[[], bool]"
    options: Mapping[str, Any]


def saliency(case: Case) -> "Tensor":
    from captum.attr import Saliency

    return Saliency(case.model).attribute(case.inputs, 0, abs=False)


def input_x_gradient(case: Case) -> "Tensor":
    from captum.attr import InputXGradient

    return InputXGradient(case.model).attribute(case.inputs, 0)


def integrated_gradients(case: Case) -> "Tensor":
    """For the predicted class and without a number of steps, as many as make it complete to 1 %, at most 400."""
    from captum.attr import IntegratedGradients

    integrated = IntegratedGradients(case.model)
    asked = case.options["steps"]
    choices = [int(asked)] if asked else list(STEPS if case.predicted() else STEPS[:1])
    for steps in choices:
        found, missed = integrated.attribute(
            case.inputs,
            case.baseline,
            0,
            n_steps=steps,
            internal_batch_size=case.batch,
            return_convergence_delta=True,
        )
        if abs(missed.item()) <= COMPLETE_TO * abs(found.sum().item() - missed.item()):
            break
    attribution: Tensor = found
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
    """In parts that captum lets overlap by one step, so small ones would cost nearly twice the steps."""
    from captum.attr import LayerConductance

    assert case.layer is not None
    conductance = LayerConductance(case.model, case.layer)
    steps = int(case.options["steps"])
    found: Tensor = conductance.attribute(
        case.inputs, case.baseline, 0, n_steps=steps, internal_batch_size=max(case.batch, LEAST_OVERLAPPING)
    )
    return found.sum(1, keepdim=True)


def deeplift(case: Case) -> "Tensor":
    from captum.attr import DeepLift

    return DeepLift(case.model).attribute(case.inputs, case.baseline, 0)


def gradient_shap(case: Case) -> "Tensor":
    """In parts of `batch` samples, so that memory does not grow with their number."""
    import torch
    from captum.attr import GradientShap

    samples, shap = int(case.options["samples"]), GradientShap(case.model)
    found = torch.zeros_like(case.inputs)
    for start in range(0, samples, case.batch):
        size = min(case.batch, samples - start)
        part = shap.attribute(case.inputs, case.baseline, n_samples=size, stdevs=_noise(case), target=0)
        found += part * (size / samples)
    return found


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
    from captum.attr import Lime

    return Lime(case.model).attribute(case.inputs, n_samples=int(case.options["samples"]), **_over_patches(case))


def kernel_shap(case: Case) -> "Tensor":
    from captum.attr import KernelShap

    return KernelShap(case.model).attribute(case.inputs, n_samples=int(case.options["samples"]), **_over_patches(case))


def _over_patches(case: Case) -> dict[str, Any]:
    """What methods that take patches away are told."""
    patches = case.patches(int(case.options["patches"])).expand(1, *case.inputs.shape[1:])
    settings = {"baselines": case.baseline, "feature_mask": patches, "target": 0}
    return settings | {"perturbations_per_eval": case.batch}


def lrp(case: Case) -> "Tensor":
    """The epsilon rule everywhere; on a copy, for captum writes into the weights."""
    import copy

    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule
    from torch import nn

    model = copy.deepcopy(case.model)
    for part in model.modules():
        if isinstance(part, nn.Flatten | nn.Identity):
            part.rule = EpsilonRule()  # type: ignore[assignment] # captum knows no rule for what only reshapes
    return LRP(model).attribute(case.inputs, 0)
