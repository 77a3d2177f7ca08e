"""Textual Inversion (arXiv 2208.01618): the toy of data/cat_toy as a word.

Command  bash tools/dist_train.sh configs/textual_inversion/textual_inversion.py 1
Cost     91 s on 2 CPU cores with mini-sd
Result   one row of the token table, 0.5 KB for mini-sd and 3 KB for SD
"""  # noqa: E501

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/sd_v1_5.py',
    '../_base_/concept.py',
]

placeholder = '<cat-toy>'
model = dict(
    type='TextualInversion',
    placeholder_token=placeholder,
    initialize_token='toy',  # one token; the learning starts from its row
    num_vectors_per_token=1,
    val_prompts=[f'a {placeholder} on the beach', f'a {placeholder} at night'],
)
train_dataloader = dict(
    dataset=dict(concept_dir='cat_toy', placeholder=placeholder)
)
# What the published command for Stable Diffusion uses: 5e-4, which its
# --scale_lr multiplies by four pictures. The README says more.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=2e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1500)
default_hooks = dict(checkpoint=dict(interval=500))
custom_hooks = [
    dict(type='PlainCheckpointHook'),
    dict(type='ExportHook'),
    dict(type='LossCurveHook', interval=500),
    dict(type='PreviewHook'),
    dict(type='NextStepsHook'),
]
randomness = dict(seed=0)
