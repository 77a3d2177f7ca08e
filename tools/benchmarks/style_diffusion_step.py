"""One inner step of StyleDiffusion at Stable Diffusion 1.x size, against a
loop that works as the official code does: the image encoder runs in every
cross-attention layer of every forward pass, both branches of guidance are
computed with gradients, all maps are spelled out, and the weight gradients of
the U-Net are left on.

    python tools/benchmarks/style_diffusion_step.py

Random weights, fp32, the device at hand, 64x64 latents, CLIP ViT-B/16. Each
side runs in a process of its own, so that neither's memory counts for the
other. Not in the numbers: what a timestep costs once, on our side the
unconditional branch, on both the step with what was learned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch
import torch.nn.functional as F
from common import Step, compare, device
from common import make_folder as make_stable_diffusion

NUM_STEPS = 30
GUIDANCE = 7.5


def make_folder(folder: Path) -> None:
    """Write the models with random weights (half precision)."""
    import transformers

    make_stable_diffusion(folder)
    config = transformers.CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    )
    transformers.CLIPVisionModelWithProjection(config).half().save_pretrained(
        folder / 'image_encoder'
    )


def make_editor(folder: Path) -> tuple[Any, dict]:
    """An editor and its batch, a random picture."""
    from mmengine.structures import BaseDataElement

    from mmhiper.models import StyleDiffusion

    editor = StyleDiffusion(
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        source_text='a standing dog',
        num_steps=NUM_STEPS,
        num_inner_steps=10**6,
        guidance_scale=GUIDANCE,
    ).to(device())
    side = editor.sd.image_size
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, side, side), generator=generator)
    sample = BaseDataElement(metainfo=dict(image_index=0))
    return editor, dict(inputs=[picture.byte()], data_samples=[sample])


def ours(folder: Path) -> Step:
    """A step of the package: the editor under MMEngine's optimizer."""
    from mmengine.optim import build_optim_wrapper

    editor, batch = make_editor(folder)
    optimizer = build_optim_wrapper(
        editor, dict(optimizer=dict(type='Adam', lr=1e-2))
    )
    stand_in_for_inversion(editor, batch)

    def step() -> None:
        editor.train_step(batch, optimizer)

    return step


def stand_in_for_inversion(editor: Any, batch: dict) -> None:
    """Fills in what 30 forward passes would give: what is measured is a step
    of training, which does not depend on the numbers.
    """
    from mmhiper.models.attention import module_of
    from mmhiper.models.inversion import Inversion

    sample = editor.data_preprocessor(batch)['data_samples'][0]
    z = random_like(editor.start)
    positions = editor.sd.num_positions
    maps = {}
    for layer in editor.map_layers:
        heads = module_of(editor.sd.unet, layer).heads
        shape = (1, heads, layer.side**2, positions)
        maps[layer.name] = torch.full(shape, 1 / positions, device=z.device)
    editor._inversion = Inversion(
        sample.image_key, [z] * (NUM_STEPS + 1), [maps] * NUM_STEPS
    )
    editor.start.copy_(z)
    editor.reached.copy_(z)
    editor.embedding.image_tokens.copy_(
        random_like(editor.embedding.image_tokens)
    )


def random_like(tensor: torch.Tensor) -> torch.Tensor:
    """Unit normal numbers, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tensor.shape, generator=generator).to(tensor.device)


class PlainAttention:
    """Attention that looks at the picture in every layer."""

    def __init__(self, name: str, state: dict[str, Any]) -> None:
        self.name = name
        self.state = state

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend, as a processor of diffusers does."""
        keys = values = hidden_states
        if encoder_hidden_states is not None:
            keys = encoder_hidden_states
            tokens = self.state['encode']()
            scale, shift = self.state['mapper'](tokens).chunk(2, dim=1)
            values = torch.cat([keys[:1], keys[1:] * scale + shift])
        query, key, value = (
            attn.head_to_batch_dim(each)
            for each in (
                attn.to_q(hidden_states),
                attn.to_k(keys),
                attn.to_v(values),
            )
        )
        maps = attn.get_attention_scores(query, key)
        if self.name in self.state['wanted']:
            half = len(maps) // 2  # the conditional branch
            self.state['maps'][self.name] = maps[half:]
        mixed = attn.batch_to_head_dim(maps @ value)
        return attn.to_out[1](attn.to_out[0](mixed))


def plain(folder: Path) -> Step:
    """A step of a loop that does everything anew and freezes nothing."""
    editor, batch = make_editor(folder)
    sd, mapper = editor.sd, editor.embedding.mappers[0]
    sd.unet.requires_grad_(True)
    clip = editor.image_encoder._load('CLIPVisionModel').to(sd.device)
    size = clip.config.image_size
    pixels = editor.data_preprocessor(batch)['inputs']
    small = F.interpolate(pixels, (size, size))

    @torch.no_grad()
    def encode() -> torch.Tensor:
        return clip.post_layernorm(clip(small).last_hidden_state)

    stand_in_for_inversion(editor, batch)
    wanted, z = editor._inversion.maps[0], editor.start
    state = dict(encode=encode, mapper=mapper, wanted=wanted, maps={})
    sd.unet.set_attn_processor(
        {name: PlainAttention(name, state) for name in sd.unet.attn_processors}
    )
    text = sd.encode_text(['', editor.source_text])
    t = editor.timesteps()[0]
    optimizer = torch.optim.Adam(mapper.parameters(), lr=1e-2)

    def step() -> None:
        both = sd.predict(torch.cat([z, z]), t, text)
        empty, full = both.chunk(2)
        output = empty + GUIDANCE * (full - empty)
        reached = sd.scheduler.step(output, t, z).prev_sample
        loss = F.mse_loss(reached, z)
        for name, maps in state['maps'].items():
            loss = loss + F.mse_loss(maps, wanted[name][0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


if __name__ == '__main__':
    compare(__doc__.split('\n\n')[0], plain, ours, make_folder)
