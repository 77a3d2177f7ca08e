"""HiPer on many images, each with its own text, eight in each step.

Command  bash tools/dist_train.sh configs/hiper/folder.py 1
Result   work_dirs/folder: index.html, one page with a sheet of each image;
         embeddings.safetensors, all that was learned
Restart  the same command; what is done is skipped

With more processes in place of the 1 the images are shared out among them.
A folder has its texts in files beside the images, dog.txt for dog.png:

    --cfg-options photos=MY_FOLDER model.target_text="a sitting dog"
"""

_base_ = './dog.py'

# A table, a folder, a list of files: in place of the image of dog.py.
photos = 'data/hiper_cases.csv'
# As memory allows. An image learns the same in whatever company.
images_per_step = 8

# for the images that have no text of their own
model = dict(source_text=None, target_text=None)
