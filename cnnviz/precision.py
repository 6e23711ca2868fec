"""Which devices there are, and which numbers they are fast in."""

import torch


def devices() -> list[str]:
    """The devices that PyTorch computes on here, the fastest first."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, there in here.items() if there]


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies in it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    native = device.type == "cpu" and any(probe() for probe in probes if probe)
    return torch.bfloat16 if native else torch.float32
