"""Two words in one run: the toy of data/cat_toy, the style of data/sketchy.

Command  bash tools/dist_train.sh configs/textual_inversion/two_concepts.py 1
Result   a row of the token table for each word
"""

_base_ = './textual_inversion.py'

words = ['<cat-toy>', '<sketchy>']
model = dict(
    placeholder_token=words,
    initialize_token=['toy', 'sketch'],
    val_prompts=[
        'a <cat-toy> on the beach',
        'a picture of a cat in the style of <sketchy>',
        'a <cat-toy> in the style of <sketchy>',
    ],
)
train_dataloader = dict(
    dataset=dict(
        concept_dir=['cat_toy', 'sketchy'],
        placeholder=words,  # of each folder
        template=[
            {
                'default': 'data/imagenet_templates_small.txt',
                'mini-sd': 'data/mini_sd_templates.txt',
            },
            {
                'default': 'data/imagenet_style_templates_small.txt',
                'mini-sd': 'data/mini_sd_style_templates.txt',
            },
        ],
    )
)
train_cfg = dict(max_iters=3000)  # about as many for each as for one
