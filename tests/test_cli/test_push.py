"""Publishing from the command line; the hub is a server of the test."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from runs import config, free_port, learn

from mmhiper.cli import main
from mmhiper.publishing import files_to_publish


@pytest.fixture(scope='module')
def run(tiny_sd1, tmp_path_factory) -> Path:
    cfg = config(tmp_path_factory.mktemp('push'), tiny_sd1)
    learn(cfg)
    return Path(cfg.work_dir)


class Hub(ThreadingHTTPServer):
    """The endpoints that a commit of small files takes.

    Attributes:
        asked: Method, path, token and body of each request.
        refusal: The code of all answers, if any.
        bad_front: Whether it takes the front of no card.
        card: What a repository has as its page, None for none.
    """

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Answers)
        self.asked: list[tuple[str, str, str | None, bytes]] = []
        self.refusal = 0
        self.bad_front = False
        self.card: bytes | None = None

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'

    def committed(self) -> tuple[str, dict[str, bytes]]:
        """The message and the files of the only commit."""
        (body,) = [
            body for _, path, _, body in self.asked if '/commit/' in path
        ]
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line['value']['path']: base64.b64decode(line['value']['content'])
            for line in lines
            if line['key'] == 'file'
        }
        (header,) = [one['value'] for one in lines if one['key'] == 'header']
        return header['summary'], files


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        card = self.server.card
        if '/resolve/' in self.path:  # the library asks for more by itself
            token = self.headers.get('Authorization')
            self.server.asked.append((self.command, self.path, token, b''))
        self.send_response(404 if card is None else 200)
        if card is None:
            self.send_header('X-Error-Code', 'EntryNotFound')
        self.send_header('X-Repo-Commit', '0' * 40)
        self.send_header('ETag', '"1"')
        self.send_header('Content-Length', str(len(card or b'')))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(card or b'')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        path = self.path.partition('?')[0]
        token = self.headers.get('Authorization')
        self.server.asked.append((self.command, path, token, body))
        if self.server.refusal:
            self.answer(dict(error='No.'), self.server.refusal)
        elif path == '/api/validate-yaml' and self.server.bad_front:
            self.answer(dict(errors=[dict(message='bad "license"')]), 400)
        elif path == '/api/repos/create':
            name = json.loads(body)
            repo = f'{name.get("organization") or "me"}/{name["name"]}'
            self.answer(dict(url=f'{self.server.url}/{repo}', id=repo))
        elif '/preupload/' in path:
            files = [
                dict(path=f['path'], uploadMode='regular', shouldIgnore=False)
                for f in json.loads(body)['files']
            ]
            self.answer(dict(files=files))
        elif '/commit/' in path:
            url = f'{self.server.url}/me/dog/commit/1'
            self.answer(dict(commitUrl=url, commitOid='1', success=True))
        else:
            self.answer({})

    def answer(self, content: dict, code: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch):
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = 'huggingface_hub.constants'
    monkeypatch.setattr(f'{constants}.ENDPOINT', server.url)
    monkeypatch.setattr(
        f'{constants}.HUGGINGFACE_CO_URL_TEMPLATE',
        server.url + '/{repo_id}/resolve/{revision}/{filename}',
    )
    # the tests have it on, so that nothing leaves the machine
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    monkeypatch.setenv('HF_TOKEN', 'hf_of_the_test')
    yield server
    server.shutdown()
    server.server_close()


def refused(capsys, *words: object) -> str:
    """What a command line that ends with 1 says, in one line."""
    with pytest.raises(SystemExit) as exit_:
        main(['push', *map(str, words)])
    error = capsys.readouterr().err
    assert exit_.value.code == 1
    assert error.startswith('error: ') and error.count('\n') == 1
    return error


# ---------------------------------------------------------------------- a hub
def test_nothing_is_sent_unless_asked_for(run, hub, capsys):
    assert main(['push', str(run), 'me/dog']) == 0

    printed = capsys.readouterr().out
    for name in files_to_publish(run):
        assert name in printed
    assert 'Nothing was sent' in printed and 'private' in printed
    assert not hub.asked


def test_a_commit(run, hub, capsys):
    words = ['push', str(run), 'me/dog', '--yes', '--message', 'First']
    assert main(words) == 0

    assert f'Sent to {hub.url}/me/dog/commit/1' in capsys.readouterr().out
    assert hub.committed() == ('First', files_to_publish(run))
    (created,) = [b for _, path, _, b in hub.asked if path.endswith('create')]
    created = json.loads(created)
    assert (created['name'], created['organization']) == ('dog', 'me')
    assert created.get('visibility') == 'private' or created['private']
    assert {token for *_, token, _ in hub.asked} == {'Bearer hf_of_the_test'}
    assert all(
        path.endswith('/main')
        for _, path, *_ in hub.asked
        if '/commit/' in path
    )


def test_a_branch_for_all_to_see(run, hub):
    words = ['push', str(run), 'me/dog', '--yes', '--public']
    assert (
        main([*words, '--revision', 'small', '--modelspec', 'license=cc0-1.0'])
        == 0
    )

    paths = [path for _, path, *_ in hub.asked]
    assert '/api/models/me/dog/branch/small' in paths
    assert '/api/models/me/dog/commit/small' in paths
    created = json.loads(hub.asked[0][3])
    assert created.get('visibility') == 'public' or not created['private']
    assert b'license: cc0-1.0' in hub.committed()[1]['README.md']


def test_a_page_that_was_changed_on_the_hub_stays(run, hub, capsys, tmp_path):
    words = ['push', str(run), 'me/dog', '--yes']
    assert main(words) == 0
    ours = hub.committed()[1]['README.md']
    hub.asked.clear()
    hub.card = b'# Written there'

    error = refused(capsys, *words[1:])
    assert 'README.md' in error and 'it stays' in error
    assert not [path for _, path, *_ in hub.asked if '/commit/' in path]

    # a page of ours is written anew, and one of the user's replaces any
    hub.card = ours
    assert main(words) == 0
    hub.asked.clear()
    hub.card = b'# Written there'
    mine = tmp_path / 'mine'
    shutil.copytree(run, mine)
    (mine / 'README.md').write_text('# Written there, and more')
    assert main(['push', str(mine), 'me/dog', '--yes']) == 0
    assert hub.committed()[1]['README.md'] == b'# Written there, and more'


def test_nobody_is_logged_in(run, hub, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv('HF_TOKEN')
    path = tmp_path / 'none'
    monkeypatch.setattr('huggingface_hub.constants.HF_TOKEN_PATH', str(path))

    assert 'hf auth login' in refused(capsys, run, 'me/dog', '--yes')
    assert not hub.asked


@pytest.mark.parametrize('code', [401, 403, 404, 400])
def test_the_hub_refuses(run, hub, capsys, code):
    hub.refusal = code

    error = refused(capsys, run, 'me/dog', '--yes')
    assert "refuses 'me/dog'" in error
    assert ('may the token write' in error) == (code != 400)


def test_the_hub_takes_no_such_card(run, hub, capsys):
    hub.bad_front = True

    assert 'bad "license"' in refused(capsys, run, 'me/dog', '--yes')


def test_no_network(run, hub, capsys, monkeypatch):
    url = f'http://127.0.0.1:{free_port()}'
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', url)

    error = refused(capsys, run, 'me/dog', '--yes')
    assert 'not reached' in error and 'network' in error


# ------------------------------------------------------------------- a folder
def test_a_folder_gets_the_same_files(run, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main(['push', str(run), f'file://{out}']) == 0
    assert not out.exists()

    assert main(['push', str(run), f'file://{out}', '--yes']) == 0
    assert {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob('*')
        if path.is_file()
    } == files_to_publish(run)
    assert f'Sent to the folder {out}' in capsys.readouterr().out


def test_mistakes(run, capsys, tmp_path):
    assert 'OWNER/NAME' in refused(capsys, run, 'dog')
    assert 'no work_dir' in refused(capsys, tmp_path / 'none', 'me/dog')
    assert 'no checkpoint' in refused(capsys, tmp_path, 'me/dog')
    words = [run, 'me/dog', '--modelspec', 'licence=x']
    assert "got 'licence'" in refused(capsys, *words)
    (tmp_path / 'file').touch()
    words = [run, tmp_path / 'file' / 'out', '--yes']
    assert 'Cannot write' in refused(capsys, *words)
