"""Image towers of open_clip, rewritten for inference, and the image spec of its preprocessing."""

from __future__ import annotations

from dataclasses import asdict

from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from mmalign_export.errors import FormatLimitError, SourceError
from mmalign_export.rewrite.attention import unfuse_attention, write_out_attention
from mmalign_export.rewrite.attention_pool import write_out_pool
from mmalign_export.rewrite.copies import structural_copy
from mmalign_export.rewrite.reparameterized import fold_branches
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.open_clip_place import OpenClipPlace
from mmalign_export.sources.refusals import checked_pictures
from mmalign_runtime.spec import ImageSpec

# As open_clip's transform checks them; it reads "random", of training, as bicubic.
_ALLOWED = {
    "interpolation": ("bicubic", "bilinear", "random"),
    "resize_mode": ("shortest", "longest", "squash"),
}


def image_backbone(visual: nn.Module) -> nn.Module:
    """Return an image tower of open_clip rewritten, pixel_values (B, 3, H, W) -> vectors (B, D)."""
    found = structural_copy(visual)
    found.output_tokens = False  # type: ignore[assignment]
    fold_branches(found)
    write_out_attention(found)
    write_out_pool(found)
    unfuse_attention(found)
    return found


def preprocessing(place: OpenClipPlace, visual: nn.Module) -> PreprocessCfg:
    """Return open_clip's preprocessing of a model, made as its factory makes it. Raises SourceError."""
    config = merge_preprocess_dict(asdict(PreprocessCfg()), place.preprocessing)
    config["size"] = visual.image_size
    try:
        return PreprocessCfg(**config)
    except (TypeError, AssertionError) as error:
        raise SourceError(f"open_clip knows no such preprocess_cfg: {config}. Correct {place.name}'s.") from error


def image_spec(config: PreprocessCfg, options: SourceOptions) -> ImageSpec:
    """Return the spec of open_clip's preprocessing. Raises SourceError and FormatLimitError."""
    for name, allowed in _ALLOWED.items():
        if getattr(config, name) not in allowed:
            raise SourceError(f"open_clip's {name} {getattr(config, name)!r} is not known; expected {allowed}.")
    height, width = config.size if isinstance(config.size, tuple | list) else (config.size, config.size)
    if config.resize_mode == "shortest" and height != width:
        raise FormatLimitError(
            f"the model covers {height} x {width} pixels with a picture and crops the rest (resize_mode 'shortest'), "
            "which the format says of squares only. Set resize_mode to 'squash' or 'longest' if it was trained so."
        )
    longest = config.resize_mode == "longest"
    resize = {"squash": "squash", "shortest": "shortest_edge", "longest": "longest_edge"}[config.resize_mode]
    level = config.fill_color
    spec = ImageSpec(
        size=height if height == width else (height, width),
        resize=resize,  # type: ignore[arg-type]
        shortest_edge=min(height, width),
        fill=(level, level, level) if longest else (0, 0, 0),
        side_rounding="half_even" if longest else "floor",
        crop_rounding="floor" if longest else "half_even",
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
        mean=_three(config.mean),
        std=_three(config.std),
        orientation="ignored" if options.orientation == "source" else "applied",
        alpha="dropped" if options.alpha == "source" else "composited",
        jpeg_oversampling=options.jpeg_oversampling,
    )
    return checked_pictures(spec)


def _three(values: object) -> tuple[float, float, float]:
    """Return a value for each channel; open_clip writes one number where the three are the same."""
    listed = list(values) if isinstance(values, tuple | list) else [values] * 3
    numbers = [float(each) for each in listed if isinstance(each, int | float)]
    if len(listed) != 3 or len(numbers) != 3:
        raise SourceError(f"open_clip's preprocess_cfg has mean or std {values!r}; expected three numbers, or one.")
    red, green, blue = numbers
    return red, green, blue
