r"""HiPer on a person: what differs from dog.py.

No picture of a person comes with this project, so name your own:

    bash tools/dist_train.sh configs/hiper/person.py 1 \
        --cfg-options train_dataloader.dataset.img=PHOTO.jpg

The bundled mini model knows dogs and cats, no people: this config needs a
CUDA device (or another backbone by model.sd.pretrained).
"""

_base_ = './dog.py'

model = dict(
    n_hiper=10,  # the authors' advice for people: a face needs more room
    sd=dict(without_cuda=None),
    source_text='a person',
    target_text='a smiling person',
)
train_dataloader = dict(dataset=dict(img='data/person.png'))
