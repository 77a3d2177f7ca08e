"""Textual Inversion on Stable Diffusion XL: a row in each of two tables.

Command  bash tools/dist_train.sh configs/textual_inversion/textual_inversion_sdxl.py 1
Cost     not measured here
Result   a row for each text encoder, `clip_l` and `clip_g`, 8 KB
"""  # noqa: E501

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/sdxl_base.py',
    '../_base_/concept.py',
]

placeholder = '<cat-toy>'
model = dict(
    type='TextualInversion',
    sd=dict(gradient_checkpointing=True),  # activations of 1024 pixels
    placeholder_token=placeholder,
    initialize_token='toy',
    val_prompts=[f'a {placeholder} on the beach', f'a {placeholder} at night'],
)
train_dataloader = dict(
    dataset=dict(concept_dir='cat_toy', placeholder=placeholder)
)
# as for Stable Diffusion 1.x, not tuned for XL
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=2e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1500)
randomness = dict(seed=0)
