"""Combinations of values that exclude each other, though each is valid by itself."""

from omegaconf import DictConfig, OmegaConf

from src.utils.errors import UserError


def check_combinations(cfg: DictConfig) -> None:
    """Refuses combinations that a device does not support, before the device is initialised.

    Raises:
        UserError: On the first such combination.
    """
    device = OmegaConf.select(cfg, "device")
    if device is None:
        return
    if device.target == "Ascend" and device.jit_level == "O2":
        raise UserError(
            "device.jit_level=O2 with device.target=Ascend: its graphs have fixed sizes, and "
            "validation and prediction take images of any size; set it to O0, O1 or null"
        )
    if device.target != "Ascend" and device.amp_level != "O0" and device.amp_dtype == "bfloat16":
        raise UserError(
            f"device.amp_dtype=bfloat16 with device.target={device.target}: Ascend alone has such "
            "convolutions, from the A2 cards on; set device.amp_level=O0"
        )
    sinks = OmegaConf.select(cfg, "trainer.sink_mode") and device.mode == "graph"
    if sinks and device.target != "CPU" and cfg.dataset.crop_size is None:
        raise UserError(
            "dataset.crop_size=null with device.sink_mode=true: whole images differ in size, and "
            "the device's queue takes one; set device.sink_mode=false device.mode=pynative, or "
            "give dataset.crop_size=[512,512]"
        )
