# A folder of pictures of one concept, and templates of sentences about it.
# `mask_dir='FOLDER'` with a mask of each picture under its name (white is the
# subject) has the loss count the subject alone.
train_dataloader = dict(
    batch_size=1,
    num_workers=0,  # the decoded pictures are kept: nothing to wait for
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='TextualInversionDataset',
        data_root='data',
        # a name of a backbone has the sentences whose words it knows
        template={
            'default': 'data/imagenet_templates_small.txt',
            'mini-sd': 'data/mini_sd_templates.txt',
        },
        pipeline=[
            dict(type='LoadUprightImage'),
            dict(type='SquareCrop'),
            dict(type='PackSourceImage'),
        ],
    ),
)
