{{/* Values that cannot work fail here, with a sentence that says what to change. */}}
{{- define "noti.validate" -}}
{{- $v := .Values -}}
{{- $heartbeat := $v.config.sse_heartbeat_s | default 15 -}}
{{- if gt (len $v.fullnameOverride) 52 -}}
{{- fail (printf "fullnameOverride has %d characters; pods of a StatefulSet need a name of 52 or less" (len $v.fullnameOverride)) -}}
{{- end -}}
{{- if not $v.nats.url -}}
{{- fail "nats.url is empty: set it to where your NATS servers are, for example --set nats.url=nats://nats.nats.svc:4222" -}}
{{- end -}}
{{- if contains "@" $v.nats.url -}}
{{- fail "nats.url holds a login, which everybody could read in the pods: take it out, and put it into a secret that nats.auth.existingSecret names" -}}
{{- end -}}
{{- with $v.nats.auth -}}
{{- if and .existingSecret (eq .type "userPassword") (not .user) -}}
{{- fail "nats.auth.type is userPassword, but nats.auth.user is empty: set it; the secret holds only the password" -}}
{{- end -}}
{{- end -}}
{{- include "noti.checkStep" (dict "root" . "value" "gossip.encryption" "steps" (include "noti.gossipSteps" .) "now" (include "noti.gossipNow" .) "to" (include "noti.gossipEncryption" .)) -}}
{{- range $key := list "tls" "httpTls" -}}
{{- $tls := dict "root" $ "for" $key -}}
{{- include "noti.checkStep" (dict "root" $ "value" (print $key ".mode") "steps" (include "noti.tlsSteps" $) "now" (include "noti.tlsNow" $tls) "to" (include "noti.tlsMode" $tls)) -}}
{{- end -}}
{{- with $v.tokens -}}
{{- if and .existingSecret (not .publisherKey) (not .subscriberKey) -}}
{{- fail "tokens.existingSecret is of no use without tokens.publisherKey or tokens.subscriberKey: name the key of the secret" -}}
{{- end -}}
{{- if and (not .existingSecret) (or .publisherAlg .subscriberKey .subscriberAlg) -}}
{{- fail "tokens.existingSecret is empty: name the secret with the keys" -}}
{{- end -}}
{{- end -}}
{{- if and $v.nats.tls.clientCertificate (not $v.nats.tls.existingSecret) -}}
{{- fail "nats.tls.clientCertificate needs nats.tls.existingSecret: a secret with ca.crt, tls.crt and tls.key" -}}
{{- end -}}
{{- range $key := list "tls" "httpTls" -}}
{{- $tls := get $v $key -}}
{{- $made := $tls.certManager.enabled -}}
{{- if and $tls.enabled (not $tls.existingSecret) (not $made) -}}
{{- fail (printf "%s.enabled needs a certificate: set %s.existingSecret to a secret that has one, or %s.certManager.enabled=true and %s.certManager.issuerRef.name" $key $key $key $key) -}}
{{- end -}}
{{- if and $tls.enabled $tls.existingSecret $made -}}
{{- fail (printf "%s has both existingSecret and certManager.enabled: choose where its certificate comes from" $key) -}}
{{- end -}}
{{- if and $made (not $tls.enabled) -}}
{{- fail (printf "%s.certManager is enabled, but %s is not, so that nobody would use the certificate: set %s.enabled=true" $key $key $key) -}}
{{- end -}}
{{- if and $made (not $tls.certManager.issuerRef.name) -}}
{{- fail (printf "%s.certManager.issuerRef.name is empty: name the Issuer or ClusterIssuer that makes the certificate" $key) -}}
{{- end -}}
{{- end -}}
{{- if and $v.tls.enabled $v.operator.enabled $v.tls.existingSecret (not $v.operator.tls.existingSecret) -}}
{{- fail "tls.existingSecret is for nodes, and the operator needs a client certificate of its own: set operator.tls.existingSecret to a secret with one (noti certs issue --client), or operator.enabled=false" -}}
{{- end -}}
{{- if and (ne (include "noti.leaderServes" .) "true") (not $v.operator.enabled) -}}
{{- fail "leaderServesBrowsers=false needs operator.enabled=true: nobody else keeps the leader out of the follower service, and its browsers would come back to it" -}}
{{- end -}}
{{- $grace := include "noti.grace" . | int -}}
{{- $least := include "noti.leastGrace" . | int -}}
{{- if lt $grace $least -}}
{{- fail (printf "termination.gracePeriodSeconds (%d) is too short: leaving the cluster (%d), draining browsers (%d) and stopping (12) take %d; set it to that or more, leave it out, or make termination.drainSeconds shorter" $grace (ternary (int $v.termination.leaveSeconds) 0 $v.termination.leave) (int $v.termination.drainSeconds) $least) -}}
{{- end -}}
{{- if lt (float64 ($v.config.election_timeout_ms | default 500)) (mulf 3 ($v.config.heartbeat_interval_ms | default 100)) -}}
{{- fail "config.election_timeout_ms is less than 3 x config.heartbeat_interval_ms: two lost heartbeats would start an election; make it longer" -}}
{{- end -}}
{{- if $v.ingress.enabled -}}
{{- if not $v.ingress.hosts -}}
{{- fail "ingress.enabled needs ingress.hosts: at least one host with its paths" -}}
{{- end -}}
{{- if le (float64 $v.ingress.readTimeoutSeconds) (float64 $heartbeat) -}}
{{- fail (printf "ingress.readTimeoutSeconds (%v) must be more than config.sse_heartbeat_s (%v): the proxy would end every quiet stream; four times as much is good" $v.ingress.readTimeoutSeconds $heartbeat) -}}
{{- end -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs: the Gateways that take the route, for example [{name: web, namespace: gateways}]" -}}
{{- end -}}
{{- range $v.extraEnv -}}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE" "STATEFULSET_NAME") -}}
{{- fail (printf "extraEnv sets %s, which the chart sets" .name) -}}
{{- end -}}
{{- if hasPrefix "NOTI_" .name -}}
{{- fail (printf "extraEnv sets %s: settings of noti belong into config, or into the value that makes them" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is switched in steps: pods of one step, and of the next, understand each other. From the
     first to the second it does not matter whether all are rolled: there are no others. */}}
{{- define "noti.checkStep" -}}
{{- $steps := splitList " " .steps -}}
{{- if .now -}}
{{- $from := 0 -}}
{{- $to := 0 -}}
{{- $root := . -}}
{{- range $rank, $step := $steps -}}
{{- if eq $step $root.now }}{{ $from = $rank }}{{ end -}}
{{- if eq $step $root.to }}{{ $to = $rank }}{{ end -}}
{{- end -}}
{{- $apart := max (sub $to $from) (sub $from $to) -}}
{{- if gt $apart 1 -}}
{{- fail (printf "%s would be %s, and the pods that run have %s: they would not understand each other while they are rolled; take one step after the other (%s), each with all pods rolled: the next one is --set %s=%s" .value .to .now (join ", " $steps) .value (index $steps (ternary (add $from 1) (sub $from 1) (gt $to $from) | int))) -}}
{{- end -}}
{{- if and (eq $apart 1) (gt $from 0) (ne (include "noti.isRolled" .root) "true") -}}
{{- fail (printf "%s would be %s, and not all pods have %s yet: wait until they are rolled (or go back: helm rollback)" .value .to .now) -}}
{{- end -}}
{{- end -}}
{{- end -}}
