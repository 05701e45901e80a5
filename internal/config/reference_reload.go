package config

import "strings"

// hotReload is the last part of docs/config.md: what is in no table.
func hotReload() string { return strings.ReplaceAll(hotReloadText, "´", "`") }

// hotReloadText has ´ where the document has a backtick.
const hotReloadText = `
## Hot reload

The files are the truth. Save them, and within 2.5 seconds the daemon runs what they say, or says loudly that it does not
and goes on as before: there is no half of an edit. Requests that are under way are never interrupted; each attempt is made
with one configuration as a whole. ´peanuts-relay plan FILE´ says beforehand what an edit would change, and what it means for
deliveries that wait; ´peanuts-relay check FILE´ whether it is valid.

### What is watched

The main file, ´conf.d´ and every file that ´${file:}´ or ´tls´ names, through symbolic links and however it is saved: in place,
renamed over, by an editor, ´sed -i´, rsync, ´ln -sfn´ or a Kubernetes volume. What counts is the content: a ´touch´ is no reload. A
burst of changes is one reload. Where the kernel cannot tell of changes they are looked for every 5 seconds, else every 30 in
addition; ´status --json´ shows which (´watching´). Not watched are environment variables and ´${cred:}´: they need a restart.

´peanuts-relay reload´ and SIGHUP read the files now. ´reload´ waits for the result and exits with 0 when the files run, 78
when they are refused, 75 when it is not done in time (´--wait=5m´; it goes on), 69 when no daemon answers.

### What happens to what waits

| change | new events | deliveries that wait |
|---|---|---|
| url, headers, secret, retry, … | go with the new value | use the new value from the next attempt on |
| ´enabled: false´ | make no delivery; recorded as skipped | are held (´disabled´) until it is enabled again; no attempt is used up |
| webhook removed | make no delivery | are held (´removed´) for 7 days, then fail with ´webhook_removed´. When the id returns with the same sink and host they go on |
| webhook returns with another sink or host | go to the new one | are held (´returned´) until ´peanuts-relay enable WEBHOOK´ lets them go or ´drop´ discards them |
| helper removed | are refused (422) | as for each of its webhooks |
| ´events´ narrowed | are filtered | still go |

´peanuts-relay drop WEBHOOK´ makes deliveries that wait fail with the code ´dropped´. Nothing else ends them early.

### What needs a restart

The keys marked **Restart**: ´listen.*´ and ´queue.dir´. The rest of the edit is taken over at once; the log, ´status´, ´plan´ and the
metric ´peanuts_relay_config_restart_required{key}´ name what waits for the next start.

### When an edit is refused

What ran goes on. The log has one error with all findings; ´status´ begins with it and its state is ´degraded´;
´peanuts_relay_config_last_reload_successful´ is 0; systemd shows it in ´systemctl status´; ´reload´ exits with 78. Correct the file and
save it, or put back what runs: both end it, with nothing else to do.

A daemon that starts on files with an error takes the last known good configuration: the files of the newest generation that ran,
with secrets read anew. It says so in the same places. With ´serve --strict´, or when nothing is kept, it exits with 78.

Each applied edit is a line for each object in the log, with keys and never values, and a new generation:

´´´text
level=INFO msg="webhook changed" id=expenses.backend fields="[url headers.X-Env]"
level=INFO msg="configuration applied" generation=42 trigger=watch changes=1 digest=f719d8d73223
´´´

### Going back

´peanuts-relay config history´ lists the last 50 generations and the last 50 refusals: when, what asked for it, which user, what
changed. ´peanuts-relay config rollback 41´ prints the file of generation 41 as it was, references unexpanded, and names what else
differs; it writes nothing. Put it back with ´cp´, which leaves owner and mode as they are, and it is live:

´´´text
peanuts-relay config rollback 41 >~/former.yaml && cp ~/former.yaml /etc/peanuts-relay/config.yaml
´´´

### Changes through the API

´POST´, ´PATCH´ and ´DELETE´ of ´/v1/webhooks´ ([api.md](api.md#webhooks)), ´peanuts-relay enable WEBHOOK´ and ´disable´ write ´conf.d/90-api.yaml´,
mode 0600, and no other file. It is merged like every drop-in: it overrides files before it, later names override it. You may edit it.
To remove a webhook from your own file that was changed through the API, remove what is left of it there too: ´check´ points at the
line. A webhook made through the API survives restarts; ´config rollback´ of an older generation says when the file was not there yet.

### Changing a secret

A secret in a ´${file:}´ is changed by replacing that file: the next attempt is signed with it. So that no delivery is refused while
the receiver has another one, list both for a time, in the order of steps of [receivers.md](receivers.md#rotating-a-secret).

### Tests of the configuration

´tests´ says what must become of an event: which webhooks get it, headers, body, signature. ´check´ runs them, and so does every reload.
A test that does not hold is a warning, and with ´reload.require_tests: true´ an error: such an edit is refused.
[config.example.yaml](../config.example.yaml) has one.

## Proxies

A server that reaches the network by a proxy says so in the daemon's environment, in the usual variables, which are read at the start:

| variable | for |
|---|---|
| ´HTTPS_PROXY´ | webhooks whose url begins with ´https://´ |
| ´HTTP_PROXY´ | those with ´http://´ |
| ´NO_PROXY´ | hosts that are reached directly: names with the domains below them, addresses, ranges such as ´10.0.0.0/8´, separated by commas. Loopback addresses always are |

The value is ´http://HOST:PORT´, ´https://HOST:PORT´ for a proxy that is itself spoken to by TLS, or ´socks5://HOST:PORT´; with
´USER:PASSWORD@´ before the host if the proxy wants that. For an ´https://´ url the proxy is asked for a tunnel (´CONNECT´) and sees host and
port alone; requests to an ´http://´ url it reads. The name of the receiver is resolved by the proxy, so of [´egress´](#egress) only what
the url spells out is judged. What a proxy fails at is an attempt with the code ´proxy´, which is retried; a ´407´ is among it.
`
