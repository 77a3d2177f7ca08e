"""model-index.yml, the metafiles and the READMEs say what is there."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.fileio import load
from runs import REPO

from mmhiper.utils.shipped import list_configs

INDEX = load(REPO / 'model-index.yml')['Import']
FOLDERS = sorted(
    path.name
    for path in (REPO / 'configs').iterdir()
    if path.is_dir() and path.name != '_base_'
)


def test_every_folder_of_configs_is_in_the_index():
    assert [f'configs/{name}/metafile.yml' for name in FOLDERS] == INDEX


@pytest.mark.parametrize('folder', FOLDERS)
def test_a_metafile_lists_the_configs_of_its_folder(folder):
    metafile = load(REPO / 'configs' / folder / 'metafile.yml')
    (collection,) = metafile['Collections']
    models = metafile['Models']

    assert Path(REPO, collection['README']).is_file()
    assert collection['Paper']['URL'].startswith('https://arxiv.org/abs/')
    listed = [model['Config'] for model in models]
    there = [name for name in list_configs() if name.startswith(f'{folder}/')]
    assert sorted(listed) == [f'configs/{name}.py' for name in there]
    assert len({model['Name'] for model in models}) == len(models)
    for model in models:
        assert model['In Collection'] == collection['Name']


@pytest.mark.parametrize('folder', FOLDERS)
def test_a_metafile_says_what_its_configs_say(folder):
    for model in load(REPO / 'configs' / folder / 'metafile.yml')['Models']:
        cfg = Config.fromfile(REPO / model['Config'])
        iterations = model['Metadata']['Iterations']
        if isinstance(iterations, int):  # else it is found on the way
            assert cfg.train_cfg.max_iters == iterations
        without_cuda = 'without CUDA' in model['Metadata']['Backbone']
        assert without_cuda == bool(cfg.model.sd.without_cuda)
        for result in model.get('Results', []):
            assert Path(REPO, result['Dataset']).exists()


@pytest.mark.parametrize('folder', FOLDERS)
def test_a_readme_has_the_form(folder):
    """Paper and abstract, command, results, cost, citation."""
    path = REPO / 'configs' / folder / 'README.md'
    text = path.read_text()
    abstract, *sections = text.split('\n## ')
    parts = {section.split()[0]: section for section in sections}
    known = ('Run', 'Results', 'Cost', 'Citation')

    assert tuple(name for name in parts if name in known) == known
    assert abstract.startswith('# ')
    assert '](https://arxiv.org/abs/' in abstract
    assert len(abstract.split()) > 50
    assert f'configs/{folder}/' in parts['Run']  # the command
    if '\n| ' in parts['Results']:  # figures come with a picture
        assert re.search(r'!\[[^\]]+\]\(', parts['Results'])
    assert '```bibtex' in parts['Citation']
    for target in re.findall(r'\]\(([^)#:]+)\)', text):
        assert (path.parent / target).exists(), target
