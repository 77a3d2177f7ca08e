# A folder of pictures of one concept, and templates of sentences about it.
train_dataloader = dict(
    batch_size=1,
    num_workers=0,  # the decoded pictures are kept: nothing to wait for
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='TextualInversionDataset',
        data_root='data',
        pipeline=[
            dict(type='LoadUprightImage'),
            dict(type='SquareCrop'),
            dict(type='PackSourceImage'),
        ],
    ),
)
