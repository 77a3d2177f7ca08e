"""A mask in the loss: the subject alone is learned."""

import numpy as np
import pytest
import torch
from PIL import Image
from runs import REPO, config, draw_image, learn
from tiny import at_step, batch_of, make_hiper, picture
from tolerances import EXACT

from mmhiper.models.denoising import masked_means

TEXTUAL_INVERSION = (
    REPO / 'configs' / 'textual_inversion' / 'textual_inversion.py'
)


def left_half(size=80, columns=None):
    """The mask of what is left of the middle, or of a column."""
    mask = torch.zeros(size, size, dtype=torch.uint8)
    mask[:, : columns or size // 2] = 255
    return mask


def losses_and_step(editor, images, masks):
    """The losses of pictures in one step, and what the U-Net gave for it."""
    at_step(3)
    data = batch_of(images, list(range(len(images))))
    for sample, mask in zip(data['data_samples'], masks, strict=True):
        if mask is not None:
            sample.set_data(dict(mask=mask))
    data = editor.data_preprocessor(data)
    with torch.no_grad():
        losses = editor.image_losses(**data)
        return losses, *editor.predict_training_step(**data)


# ------------------------------------------------------------------- the mean
@pytest.mark.usefixtures('float64')
def test_a_masked_mean_is_over_the_subject_whatever_its_size():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 4, 8, 8, generator=generator)
    output = target + 3  # an error of 9 everywhere
    output[1, :, :, 5:] += torch.randn(4, 8, 3, generator=generator)
    mask = (left_half(64, 40) / 255).float()  # five of eight columns

    plain, masked = masked_means(output, target, [None, mask])

    torch.testing.assert_close(plain, torch.tensor(9.0), **EXACT)
    torch.testing.assert_close(masked, torch.tensor(9.0), **EXACT)


@pytest.mark.usefixtures('float64')
def test_a_latent_counts_by_its_share_of_the_subject():
    target = torch.zeros(1, 4, 1, 2)
    output = torch.tensor([1.0, 3.0]).expand(1, 4, 1, 2)  # errors 1 and 9
    mask = torch.zeros(8, 16)
    mask[:, :10] = 1  # all of the first, a quarter of the second

    (loss,) = masked_means(output, target, [mask])

    expected = torch.tensor((1 + 9 / 4) / 1.25)
    torch.testing.assert_close(loss, expected, **EXACT)


# ----------------------------------------------------------------- the editor
@pytest.mark.usefixtures('float64')
def test_without_a_mask_nothing_changes(tiny_folder):
    editor = make_hiper(tiny_folder, source_text=['a dog', 'a fox'])
    images = [picture(0), picture(1)]

    losses, output, target = losses_and_step(editor, images, [None, None])

    plain = (output - target).square().flatten(1).mean(1)
    torch.testing.assert_close(losses, plain, **EXACT)
    beside_masked, *_ = losses_and_step(editor, images, [None, left_half()])
    assert beside_masked[0] == losses[0]
    assert (beside_masked[1] - losses[1]).abs() > 1e-3


@pytest.mark.usefixtures('float64')
def test_a_mask_changes_what_counts_and_no_random_number(tiny_folder):
    image = [picture(0)]
    plain = losses_and_step(make_hiper(tiny_folder), image, [None])
    masked = losses_and_step(make_hiper(tiny_folder), image, [left_half()])

    _, output, target = masked
    assert torch.equal(output, plain[1])
    assert torch.equal(target, plain[2])
    by_hand = (output - target)[..., :4].square().mean()
    torch.testing.assert_close(masked[0][0], by_hand, **EXACT)


@pytest.mark.usefixtures('float64')
def test_the_outside_is_held_to_the_plain_text(tiny_folder):
    held = make_hiper(tiny_folder, hold_outside=2.0)
    image, mask = [picture(0)], [left_half()]
    plain, before, target = losses_and_step(held, image, mask)
    masked = (before - target)[..., :4].square().mean()
    # nothing is learned yet
    torch.testing.assert_close(plain[0], masked, **EXACT)

    with torch.no_grad():
        held.embedding.tail.neg_()
    losses, output, target = losses_and_step(held, image, mask)

    subject = (output - target)[..., :4].square().mean()
    outside = (output - before)[..., 4:].square().mean()
    assert outside > 1e-6
    torch.testing.assert_close(losses[0], subject + 2 * outside, **EXACT)
    # without an outside it is the plain loss
    whole = [left_half(columns=80)]
    unheld = make_hiper(tiny_folder)
    with torch.no_grad():
        unheld.embedding.tail.neg_()
    for masks in (whole, [None]):
        torch.testing.assert_close(
            losses_and_step(held, image, masks)[0],
            losses_and_step(unheld, image, [None])[0],
            **EXACT,
        )


def test_the_preview_fades_what_is_not_learned(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    image = picture(0, 64)
    losses_and_step(editor, [image], [left_half(64)])

    caption, panel = editor.preview(num_inference_steps=1)[0]

    assert 'faded' in caption
    seen, shown = image.permute(1, 2, 0).numpy(), np.asarray(panel)
    assert np.array_equal(shown[:, :32], seen[:, :32])
    contrast = np.ptp(shown[:, 32:].astype(int))
    assert 0.15 < contrast / np.ptp(seen[:, 32:].astype(int)) < 0.25


# ------------------------------------------------------------------- the runs
@pytest.mark.usefixtures('float64')
def test_hiper_learns_by_a_mask_from_a_config(tmp_path, tiny_sd1):
    draw_image(tmp_path / 'image.png')
    for name, columns in (('half', 32), ('whole', 64)):
        array = left_half(64, columns).numpy()
        Image.fromarray(array).save(tmp_path / f'{name}.png')

    def run(mask=None):
        options = {'train_dataloader.dataset.mask': mask and str(mask)}
        return learn(config(tmp_path, tiny_sd1, iters=3, **options))

    plain = run()
    half, whole = (run(tmp_path / f'{name}.png') for name in ('half', 'whole'))
    torch.testing.assert_close(whole, plain, **EXACT)
    assert (half - plain).abs().max() > 1e-3


def test_padding_is_left_out_from_a_config(tmp_path, tiny_sd1):
    draw_image(tmp_path / 'square.png').rename(tmp_path / 'image.png')
    with Image.open(tmp_path / 'image.png') as image:
        image.resize((64, 32)).save(tmp_path / 'image.png')
    cfg = config(tmp_path, tiny_sd1, previews=True)
    cfg.train_dataloader.dataset.pipeline[1].crop = 'none'
    learn(cfg)

    (preview,) = (tmp_path / 'run' / 'previews').iterdir()
    with Image.open(preview) as sheet:
        source = np.asarray(sheet.convert('RGB'))[-264:-8, 8:264].astype(int)
    ranges = [np.ptp(rows) for rows in (source[:56], source[72:184])]
    assert ranges[0] < 0.3 * ranges[1]  # faded above the picture


def test_a_word_is_learned_by_masks_from_a_config(tmp_path, tiny_sd1):
    (tmp_path / 'masks').mkdir()
    draw_image(tmp_path / 'image.png')
    Image.fromarray(left_half(64).numpy()).save(
        tmp_path / 'masks' / 'image.png'
    )

    def run(**options):
        return learn(
            config(tmp_path, tiny_sd1, file=TEXTUAL_INVERSION, **options)
        )

    masks = {'train_dataloader.dataset.mask_dir': 'masks'}
    masked = run(**masks)
    assert (masked - run()).abs().max() > 1e-6
    held = run(**masks, **{'model.hold_outside': 1.0})
    assert (held - masked).abs().max() > 1e-6


def test_an_inversion_refuses_a_mask(tmp_path, tiny_sd1):
    from mmhiper.models.editors.ddim_inversion import DDIMInversion

    editor = DDIMInversion(
        dict(type='StableDiffusion', pretrained=str(tiny_sd1)), 'a dog'
    )
    data = batch_of([picture(0)], [0])
    data['data_samples'][0].set_data(dict(mask=left_half()))
    with pytest.raises(ValueError, match='DDIMInversion inverts a whole'):
        editor.invert(**editor.data_preprocessor(data))
