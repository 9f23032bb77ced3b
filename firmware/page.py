"""The status page: static, in pieces that are sent one by one. Its script shows /status.json, and asks again every ten
seconds; without script there are its buttons, and links to the JSON and the log.

What it shows may come from strangers: the script makes text nodes of it, never HTML. Style and script are in the page
under a nonce, and nothing else may be loaded (Content Security Policy level 2). Loaded while it is sent.

May use: routes. The names of its script: e makes an element, s shows seconds, k octets; t a tile, f a form, u a list
with its heading, m a mail, r how many more there are.
"""

import binascii
import os

from routes import answer

_POLICY = (
    "default-src 'none'; style-src 'nonce-N'; script-src 'nonce-N'; connect-src 'self'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_PIECES = (
    b'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>edgepost</title>'
    b'<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,"><style nonce="',
    None,
    b'">:root{color-scheme:light dark;--b:#f3f4f6;--c:#fff;--t:#16181d;--d:#5b616e;--l:#d9dce2;--a:#1d5fd1;--g:#137a3c;'
    b"--r:#b3261e}@media(prefers-color-scheme:dark){:root{--b:#121418;--c:#1c1f26;--t:#e8eaee;--d:#a0a6b3;--l:#343945;"
    b"--a:#8ab4f8;--g:#7bd79b;--r:#ff8a80}}",
    b"*{box-sizing:border-box}body{margin:0 auto;max-width:44rem;padding:1rem;background:var(--b);color:var(--t);"
    b"font:16px/1.45 system-ui,sans-serif;overflow-wrap:anywhere}h1{font-size:1.5rem;margin:0}"
    b"h2{font-size:1rem;margin:1.5rem 0 .5rem}p{margin:.25rem 0}small,i{color:var(--d);font-style:normal}"
    b".ok{color:var(--g)}.bad{color:var(--r)}.n{border:1px solid var(--a);border-radius:.5rem;padding:.5rem .75rem}",
    b"ul,pre,.g div{list-style:none;margin:0;padding:0;background:var(--c);border:1px solid var(--l);"
    b"border-radius:.75rem}li,pre,.g div{padding:.6rem .75rem}li+li{border-top:1px solid var(--l)}b{font-weight:600}"
    b".f{display:flex;flex-wrap:wrap;gap:0 .75rem;justify-content:space-between;align-items:baseline}"
    b".f *{min-width:0}",
    b".g{display:grid;grid-template-columns:repeat(auto-fit,minmax(7.5rem,1fr));gap:.5rem;margin:1rem 0 .3rem}"
    b".g b{display:block;font-size:1.35rem}.g i{font-size:.875rem}form{display:inline-block;margin:.4rem .4rem 0 0}"
    b"button{font:inherit;min-height:2.75rem;padding:0 1rem;border:1px solid var(--a);border-radius:.6rem;"
    b"background:var(--c);color:var(--a)}",
    b"pre{font:13px/1.5 ui-monospace,monospace;white-space:pre-wrap}</style></head><body>"
    b'<p id="off" class="n bad" hidden>The gateway does not answer. What is below is old.</p><div id="top"></div>'
    b'<noscript><p>Without script: <a href="/status.json">status</a>, <a href="/queue">queue</a>, '
    b'<a href="/log">log</a>.</p></noscript>',
    b'<form method="post" action="/test-mail?page"><button>Send a test mail</button></form>'
    b'<form method="post" action="/queue/start?page"><button>Start the queue</button></form>'
    b'<main></main><script nonce="',
    None,
    b'">let $=i=>document.getElementById(i),e=(t,c,...k)=>{let n=document.createElement(t);n.className=c;'
    b"n.append(...k.filter(x=>x!=null));return n},"
    b's=n=>n==null?"\xe2\x80\x93":n<60?n+" s":n<3600?(n/60|0)+" min":n<86400?(n/3600|0)+" h":(n/86400|0)+" d",'
    b'k=n=>n<1024?n+" B":n<1048576?(n>>10)+" KB":(n/1048576).toFixed(1)+" MB",',
    b't=(v,w,b)=>e("div","",e("b",b?"bad":"",""+v),e("i","",w)),'
    b'f=(p,l,q)=>{let n=e("form","",e("button","",l));n.method="post";n.action=p+"?page";n.onsubmit=()=>!q||confirm(q);'
    b'return n},u=(h,l)=>l.length?[e("h2","",h),e("ul","",...l)]:[],',
    b'm=(x,d)=>e("li","",e("div","f",e("b","",x.to.join(", ")+(x.more?" and "+x.more+" more":"")||"?"),'
    b'e("small","",s(x.age))),e("small","",(x.from?"from "+x.from+", ":"")+k(x.size)+", "+(d?x.state=="bad"||'
    b'x.state=="junk"?"damaged":"given up":x.due==null?"on its way":x.attempts?"tried "+x.attempts+(x.attempts>1?'
    b'" times":" time")+", again in "+s(x.due):"waits")),',
    b'x.reply?e("p","bad",x.reply):null,d?e("div","",f("/queue/"+x.id+"/send","Send again"),f("/queue/"+x.id+"/delete",'
    b'"Delete","Delete this mail for good?")):null),'
    b'r=(l,n)=>n>l.length&&l.length?[e("li","",e("small","","and "+(n-l.length)+" more"))]:[];',
    b"async function show(){let a=await fetch(location.origin+\"/status.json\",{cache:\"no-store\"});if(!a.ok)throw 0;"
    b"let d=await a.json(),q=d.queue,h=d.health,w=[...h.why];if(d.trouble)w.push(\"Smart host \"+d.trouble);"
    b"document.title=d.name;let c={test:\"The test mail is in the queue.\",start:\"The queue was started.\","
    b"send:\"The mail is due now.\",delete:\"The mail was deleted.\"}[location.search.slice(1)];",
    b'let y=q.dead+q.damaged;$("top").replaceChildren(...(c?[e("p","n",c)]:[]),e("h1","",d.name),'
    b'...w.map(x=>e("p","bad",x[0].toUpperCase()+x.slice(1))),...(w.length?[]:[e("p","ok","Mail flows.")]),'
    b'e("div","g",t(q.waiting,"wait"),t(s(h.age),"the oldest"),t(y,"dead letters",y),'
    b't(d.delivered,"delivered")));',
    b'document.querySelector("main").replaceChildren(...u("Sensors",d.sensors.map(x=>{let b=x.state!="ok"&&x.state!='
    b'"unread";return e("li","f",e("span","",x.name,e("br",""),e("small","",x.fault||(x.age==null?"not read yet":'
    b's(x.age)+" ago"))),e("b",b?"bad":"",(x.shown||"\xe2\x80\x93")+(b?" "+x.state:"")))})),',
    b'...u("Mail that waits",[...d.mails.map(x=>m(x)),...r(d.mails,q.waiting)]),'
    b'...u("Dead letters",[...d.letters.map(x=>m(x,1)),...r(d.letters,y)]),'
    b'...u("Last deliveries and errors",d.events.reverse().map(x=>e("li","",e("small","",s(x.age)+" ago"),'
    b'e("br",""),x.text))),e("h2","","Log"),e("pre","",d.log.join("")),',
    b'e("p","",e("small","","Up for "+s(d.uptime)+" \xc2\xb7 mail takes "+k(q.bytes)+" of "+k(q.max_bytes)+", "+'
    b'k(q.free)+" of flash are free \xc2\xb7 "+k(d.heap.used)+" of heap in use, "+k(d.heap.free)+" free"+'
    b'(d.signal==null?"":" \xc2\xb7 Wi-Fi "+d.signal+" dBm")+" \xc2\xb7 edgepost "+d.version+" on MicroPython "+'
    b'd.micropython)))}',
    b'async function go(){if(!document.hidden&&!document.querySelector("button:active"))try{await show();'
    b'$("off").hidden=!0}catch(x){$("off").hidden=!1}setTimeout(go,10000)}go()</script></body></html>',
)


def show(req, ident):
    nonce = binascii.hexlify(os.urandom(8))
    policy = _POLICY.replace("N", str(nonce, "utf-8"))
    return answer(200, (piece or nonce for piece in _PIECES), "text/html", policy=policy)
