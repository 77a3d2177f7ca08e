"""What texts look like on the page."""

from mmhiper.web.look import as_html


def test_no_text_is_markup():
    html = as_html(['<b>&', 'x'], 0.25)
    assert html.startswith('<p>&lt;b&gt;&amp;</p><div')
    assert 'width:25%' in html and html.endswith('</div><p>x</p>')
