"""Settings of a folder of the authors' T2T-ViT: their arguments in `config.json`."""

import json
from pathlib import Path

from vidtl.config import ClipConfig, ModelConfig


def golden_config(folder: Path) -> ModelConfig:
    config = json.loads((folder / "config.json").read_text())
    return ModelConfig(
        architecture="t2t_vit",
        width=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_width=int(config["mlp_ratio"] * config["embed_dim"]),
        tokenizer=f"t2t_{config['tokens_type']}",  # type: ignore[arg-type]
        token_width=config["token_dim"],
    )


def golden_clip(folder: Path) -> ClipConfig:
    side = json.loads((folder / "config.json").read_text())["img_size"]
    return ClipConfig(num_frames=1, frame_size=(side, side), short_side=side)
