"""What is loaded between a command and its first iteration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer
from runs import REPO, draw_image

from mmhiper.engine import LazyVisualizer

# None of these has a part in a training, and each takes its time: charts,
# data frames, other models, compilers, servers.
NEEDLESS = (
    'IPython',
    'accelerate',
    'diffusers.pipelines.stable_diffusion',
    'gradio',
    'matplotlib',
    'onnx',
    'pandas',
    'peft',
    'ray',
    'scipy',
    'sklearn',
    'tensorboard',
    'torch._inductor.compile_fx',
    'torch.utils.tensorboard',
    'torchaudio',
    'torchvision',
    'transformers.models.bert',
    'transformers.models.t5',
    'transformers.trainer',
    'wandb',
)
# Ends the process behind the first iteration, and says what is loaded.
WATCH = """
import os, sys
from mmhiper.threads import bound_spin
bound_spin()
from mmengine.runner import IterBasedTrainLoop
run_iter = IterBasedTrainLoop.run_iter
def watched(self, batch):
    run_iter(self, batch)
    print('\\nloaded', *sys.modules, flush=True)
    os._exit(0)
IterBasedTrainLoop.run_iter = watched
from mmhiper.cli import main
main(sys.argv[1:])
"""


def loaded(backbone: Path, folder: Path) -> set[str]:
    """The modules at the end of the first iteration of a training."""
    values = {
        'model.sd.pretrained': backbone,
        'model.sd.without_cuda': None,
        'train_dataloader.dataset.img': draw_image(folder / 'image.png'),
        'train_cfg.max_iters': 2,
    }
    words = ['train', str(REPO / 'configs' / 'hiper' / 'dog.py')]
    words += ['--work-dir', str(folder / 'run'), '--cfg-options']
    words += [f'{name}={value}' for name, value in values.items()]
    done = subprocess.run(
        [sys.executable, '-c', WATCH, *words],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert 'loaded ' in done.stdout, done.stderr
    return set(done.stdout.rpartition('loaded ')[2].split())


def test_a_training_starts_with_what_it_needs_alone(tiny_sd1, tmp_path):
    modules = loaded(tiny_sd1, tmp_path)

    assert {'torch', 'diffusers', 'transformers.models.clip'} <= modules
    assert set(NEEDLESS) & modules == set()
    # of transformers' some 400 models those that CLIP's own modules ask for
    models = {name for name in modules if name.count('.') == 2}
    models = {n for n in models if n.startswith('transformers.models.')}
    assert len(models) <= 10, models
    # and of diffusers' pipelines none but the code that they share
    kinds = [n for n in modules if n.startswith('diffusers.pipelines.')]
    assert all('.pipeline_' in name for name in kinds), kinds


def test_the_visualizer_makes_its_figure_when_it_is_drawn_on(tmp_path):
    picture = np.full((8, 8, 3), 127, np.uint8)
    boxes = torch.tensor([[1, 1, 5, 5]])
    drawn = []
    for kind in (Visualizer, LazyVisualizer):
        visualizer = kind(name=kind.__name__, save_dir=str(tmp_path))
        assert ('fig_save' in vars(visualizer)) == (kind is Visualizer)
        visualizer.set_image(picture)
        drawn.append(visualizer.draw_bboxes(boxes).get_image())
        assert kind(kind.__name__ + '2', picture).get_image().shape == (
            8,
            8,
            3,
        )
        with pytest.raises(AttributeError, match='no_such'):
            visualizer.no_such()
    assert (drawn[0] != picture).any()
    assert np.array_equal(*drawn)
