"""Images on their way to a device: everything is checked before the first byte is sent."""

from pathlib import Path

from ..arch.config import AcceleratorConfig, ModelConfig
from ..arch.layout import Image, ImageError, read_image, write_image
from .errors import BadImage, ForeignImage

_CARD = {"model": dict, "entries": dict, "labels": list, "logit_scale": (int, float)}


def open_image(image: Image | bytes | str | Path) -> tuple[bytes, Image]:
    """The bytes and the parsed form of an image, or of the file of that name.

    Raises
    ------
    BadImage
        Says which part is damaged.
    """
    try:
        if isinstance(image, (str, Path)):
            image = Path(image).read_bytes()
        data = write_image(image) if isinstance(image, Image) else bytes(image)
        image = read_image(data)
    except ImageError as error:
        raise BadImage(str(error), remedy="") from error
    except OSError as error:
        raise BadImage(f"The image cannot be read: {error}.") from error
    try:
        card = image.card
        missing = [name for name, kind in _CARD.items() if not isinstance(card.get(name), kind)]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        ModelConfig.from_dict(card["model"])
        for entry in ("boot", "token"):
            int(card["entries"][entry])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadImage(f"The image's card is damaged: {error}.") from error
    return data, image


def check_machine(image: Image, cfg: AcceleratorConfig) -> None:
    """Refuse an image that was compiled for another machine, or whose program the machine cannot hold.

    Raises
    ------
    ForeignImage, BadImage
    """
    if image.fingerprint != cfg.fingerprint:
        raise ForeignImage(f"The image was compiled for machine {image.card.get('machine')!r} (fingerprint {image.fingerprint:#010x}); "
                           f"this device is {cfg.name!r} ({cfg.fingerprint:#010x}).")
    size = len(image.sections["program"])
    if size % 32 or not 0 < size // 32 <= cfg.program_words:
        raise BadImage(f"The image's program has {size} bytes; the device holds {cfg.program_words} commands of 32.")
