"""A style in place of an object: what differs from textual_inversion.py.

Command  bash tools/dist_train.sh configs/textual_inversion/style.py 1
"""

_base_ = './textual_inversion.py'

placeholder = '<sketchy>'
model = dict(
    placeholder_token=placeholder,
    initialize_token='sketch',
    val_prompts=[f'a picture of a cat in the style of {placeholder}'],
)
train_dataloader = dict(
    dataset=dict(
        concept_dir='sketchy',
        placeholder=placeholder,
        template={
            'default': 'data/imagenet_style_templates_small.txt',
            'mini-sd': 'data/mini_sd_style_templates.txt',
        },
    )
)
train_cfg = dict(max_iters=1000)  # styles converge sooner
