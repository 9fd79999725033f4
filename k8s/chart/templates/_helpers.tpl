{{/* Names. A label, and a name in DNS, holds 63 characters. A StatefulSet's pods carry its name and 11
     more in a label, so the full name is cut at 52; with -headless it is 61 long. */}}
{{- define "noti.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "noti.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "noti.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "noti.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "noti.headless" -}}{{ include "noti.fullname" . }}-headless{{- end -}}

{{/* Labels. Call with (dict "root" . "component" "node"). */}}
{{- define "noti.selectorLabels" -}}
app.kubernetes.io/name: {{ include "noti.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "noti.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "noti.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/part-of: noti
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- include "noti.commonLabels" .root }}
{{- end -}}

{{- define "noti.commonLabels" -}}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of pods: nothing that changes with the chart alone, as that would roll them. */}}
{{- define "noti.podLabels" -}}
{{ include "noti.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/part-of: noti
{{- include "noti.commonLabels" .root }}
{{- end -}}

{{- define "noti.image" -}}
{{- with .Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What all pods have in common besides. */}}
{{- define "noti.everyPod" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Families of addresses of a service. */}}
{{- define "noti.families" -}}
{{- with .ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .ipFamilies }}
ipFamilies: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* How a service is reached from outside, and in which families of addresses. */}}
{{- define "noti.exposure" -}}
type: {{ .type }}
{{- include "noti.families" . }}
{{- if and .externalTrafficPolicy (ne .type "ClusterIP") }}
externalTrafficPolicy: {{ .externalTrafficPolicy }}
{{- end }}
{{- if eq .type "LoadBalancer" }}
{{- with .loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with .loadBalancerSourceRanges }}
loadBalancerSourceRanges: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "noti.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "noti.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "noti.operatorName" -}}{{ include "noti.fullname" . }}-operator{{- end -}}

{{- define "noti.operatorServiceAccountName" -}}
{{- .Values.operator.serviceAccount.name | default (include "noti.operatorName" .) -}}
{{- end -}}

{{/* Whether the API server is to watch what the operator does. Kubernetes can since 1.30. */}}
{{- define "noti.admissionPolicy" -}}
{{- $wanted := .Values.operator.admissionPolicy.enabled -}}
{{- if kindIs "invalid" $wanted -}}
{{- $wanted = semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- end -}}
{{- and .Values.operator.enabled $wanted -}}
{{- end -}}

{{/* Whom the service selects that browsers come to. */}}
{{- define "noti.browsersService" -}}
{{- include "noti.fullname" . -}}
{{- if ne (include "noti.leaderServes" .) "true" }}-follower{{ end -}}
{{- end -}}

{{- define "noti.browsersPort" -}}
{{- ternary .Values.service.port .Values.followerService.port (eq (include "noti.leaderServes" .) "true") -}}
{{- end -}}

{{/* Numbers. As many found a cluster as at its installation, so that fewer replicas roll no pod. */}}
{{- define "noti.bootstrapExpect" -}}
{{- if kindIs "invalid" .Values.bootstrapExpect -}}
{{- $running := include "noti.variableNow" (dict "root" . "name" "NOTI_BOOTSTRAP_EXPECT" "absent" "0") | int -}}
{{- max $running (min 3 (int .Values.replicas)) -}}
{{- else -}}
{{- int .Values.bootstrapExpect -}}
{{- end -}}
{{- end -}}

{{- define "noti.leaderServes" -}}
{{- if kindIs "invalid" .Values.leaderServesBrowsers -}}
{{- not .Values.operator.enabled -}}
{{- else -}}
{{- .Values.leaderServesBrowsers -}}
{{- end -}}
{{- end -}}

{{/* A node needs 7 s to stop besides draining (STOP_S in noti/config.py); 2 s more are for a busy
     machine. Kubernetes counts the grace period from before preStop, and kills at its end. */}}
{{- define "noti.shutdownDeadline" -}}
{{- add (int .Values.termination.drainSeconds) 9 -}}
{{- end -}}

{{/* What starting Python, and an answer that comes late, may take of termination.leaveSeconds. */}}
{{- define "noti.leaveWithin" -}}
{{- sub (int .Values.termination.leaveSeconds) 5 -}}
{{- end -}}

{{- define "noti.leastGrace" -}}
{{- add (ternary (int .Values.termination.leaveSeconds) 0 .Values.termination.leave) (include "noti.shutdownDeadline" . | int) 3 -}}
{{- end -}}

{{- define "noti.grace" -}}
{{- if kindIs "invalid" .Values.termination.gracePeriodSeconds -}}
{{- include "noti.leastGrace" . -}}
{{- else -}}
{{- int .Values.termination.gracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* Addresses. The founders by their stable names: each is dialled until it is found, whatever its
     address is by then. They stay the same when replicas change, so that scaling rolls no pod. A
     lone founder must not join: it founds. */}}
{{- define "noti.join" -}}
{{- $root := . -}}
{{- $names := list -}}
{{- $expect := include "noti.bootstrapExpect" . | int -}}
{{- if gt $expect 1 -}}
{{- range $ordinal := until $expect -}}
{{- $names = append $names (printf "%s-%d.%s:8401" (include "noti.fullname" $root) $ordinal (include "noti.headless" $root)) -}}
{{- end -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{- define "noti.bind" -}}
{{- if contains ":" .Values.bindHost }}[{{ .Values.bindHost }}]{{ else }}{{ .Values.bindHost }}{{ end -}}
{{- end -}}

{{/* Secrets with certificates. */}}
{{- define "noti.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "noti.fullname" .)) -}}
{{- end -}}

{{- define "noti.operatorTlsSecret" -}}
{{- .Values.operator.tls.existingSecret | default (printf "%s-operator-tls" (include "noti.fullname" .)) -}}
{{- end -}}

{{- define "noti.httpTlsSecret" -}}
{{- .Values.httpTls.existingSecret | default (printf "%s-http-tls" (include "noti.fullname" .)) -}}
{{- end -}}

{{/* Keys of gossip. A cluster without keys gets them in three steps, each of them a roll, in which
     nodes of one step and of the next understand each other: see Encryption in
     noti/swim/core/sealing.py. */}}
{{- define "noti.gossipSecret" -}}
{{- .Values.gossip.existingSecret | default (printf "%s-gossip" (include "noti.fullname" .)) -}}
{{- end -}}

{{- define "noti.gossipSteps" -}}plain understood sent required{{- end -}}

{{/* The step of the pods that run; empty without any, or without a cluster to ask. */}}
{{- define "noti.gossipNow" -}}
{{- include "noti.variableNow" (dict "root" . "name" "NOTI_GOSSIP_ENCRYPTION" "absent" "plain") -}}
{{- end -}}

{{/* A variable of the pods that run, or `absent`; empty without any, or without a cluster to ask. */}}
{{- define "noti.variableNow" -}}
{{- $name := .name -}}
{{- $value := .absent -}}
{{- with lookup "apps/v1" "StatefulSet" .root.Release.Namespace (include "noti.fullname" .root) -}}
{{- range .spec.template.spec.containers -}}
{{- range .env -}}
{{- if eq .name $name }}{{ $value = .value }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $value -}}
{{- end -}}
{{- end -}}

{{/* Whether all pods are rolled, so that the next step may be taken. */}}
{{- define "noti.isRolled" -}}
{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace (include "noti.fullname" .) -}}
{{- $status := .status | default dict -}}
{{- $wanted := int .spec.replicas -}}
{{- and (ge (int $status.observedGeneration) (int .metadata.generation)) (eq (int $status.updatedReplicas) $wanted) (eq (int $status.readyReplicas) $wanted) -}}
{{- end -}}
{{- end -}}

{{- define "noti.gossipEncryption" -}}
{{- $steps := include "noti.gossipSteps" . | splitList " " -}}
{{- $now := include "noti.gossipNow" . -}}
{{- $rolled := eq (include "noti.isRolled" .) "true" -}}
{{- if .Values.gossip.encryption -}}
{{- .Values.gossip.encryption -}}
{{- else if eq $now "" -}}
required
{{- else if eq $now "plain" -}}
understood
{{- else if and $rolled (ne $now "required") -}}
{{- ternary "sent" "required" (eq $now "understood") -}}
{{- else -}}
{{- $now -}}
{{- end -}}
{{- end -}}

{{/* TLS between nodes (call with "tls") and for browsers ("httpTls"), as dict "root" . "for" …. A
     cluster without gets it in two steps, and loses it in two, each of them a roll. */}}
{{- define "noti.tlsSteps" -}}off permissive required{{- end -}}

{{/* The step of the pods that run. Charts before 0.7 had no mode: what had a certificate required. */}}
{{- define "noti.tlsNow" -}}
{{- $variable := ternary "NOTI_TLS_" "NOTI_HTTP_TLS_" (eq .for "tls") -}}
{{- $certificate := include "noti.variableNow" (dict "root" .root "name" (print $variable "CERT") "absent" "off") -}}
{{- if has $certificate (list "" "off") -}}
{{- $certificate -}}
{{- else -}}
{{- include "noti.variableNow" (dict "root" .root "name" (print $variable "MODE") "absent" "required") -}}
{{- end -}}
{{- end -}}

{{- define "noti.tlsMode" -}}
{{- $values := get .root.Values .for -}}
{{- $now := include "noti.tlsNow" . -}}
{{- if not $values.enabled -}}
off
{{- else if $values.mode -}}
{{- $values.mode -}}
{{- else if eq $now "" -}}
required
{{- else if eq $now "off" -}}
permissive
{{- else if eq (include "noti.isRolled" .root) "true" -}}
required
{{- else -}}
{{- $now -}}
{{- end -}}
{{- end -}}

{{/* How proxies and tests speak to the service of browsers: as all its pods understand, also those
     that are not rolled yet. Pods that understand both are spoken to as before. */}}
{{- define "noti.scheme" -}}
{{- $mode := include "noti.tlsMode" (dict "root" . "for" "httpTls") -}}
{{- if eq $mode "permissive" -}}
{{- $service := lookup "v1" "Service" .Release.Namespace (include "noti.fullname" .) -}}
{{- $scheme := .Values.httpTls.scheme | default "http" -}}
{{- if and $service (not .Values.httpTls.scheme) -}}
{{- range $service.spec.ports -}}
{{- if eq .name "http" }}{{ $scheme = .appProtocol | default "http" }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $scheme -}}
{{- else -}}
{{- ternary "http" "https" (eq $mode "off") -}}
{{- end -}}
{{- end -}}

{{/* How to reach NATS: of nodes, and of the pod of `helm test`. */}}
{{- define "noti.natsEnv" -}}
- name: NOTI_NATS_URL
  value: {{ .Values.nats.url | quote }}
{{- with .Values.nats.auth }}
{{- if .existingSecret }}
{{- if eq .type "userPassword" }}
- name: NOTI_NATS_USER
  value: {{ .user | quote }}
{{- end }}
- name: {{ get (dict "creds" "NOTI_NATS_CREDS_FILE" "nkey" "NOTI_NATS_NKEY_FILE" "token" "NOTI_NATS_TOKEN_FILE" "userPassword" "NOTI_NATS_PASSWORD_FILE") .type }}
  value: /etc/noti/nats/login
{{- end }}
{{- end }}
{{- with .Values.nats.tls }}
{{- if .existingSecret }}
- name: NOTI_NATS_TLS_CA
  value: /etc/noti/nats-tls/ca.crt
{{- if .clientCertificate }}
- name: NOTI_NATS_TLS_CERT
  value: /etc/noti/nats-tls/tls.crt
- name: NOTI_NATS_TLS_KEY
  value: /etc/noti/nats-tls/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "noti.natsMounts" -}}
{{- if .Values.nats.auth.existingSecret }}
- name: nats-login
  mountPath: /etc/noti/nats
  readOnly: true
{{- end }}
{{- if .Values.nats.tls.existingSecret }}
- name: nats-tls
  mountPath: /etc/noti/nats-tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "noti.natsVolumes" -}}
{{- with .Values.nats.auth }}
{{- if .existingSecret }}
- name: nats-login
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .key | default (get (dict "creds" "nats.creds" "nkey" "nkey" "token" "token" "userPassword" "password") .type) | quote }}
        path: login
{{- end }}
{{- end }}
{{- with .Values.nats.tls.existingSecret }}
- name: nats-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* Keys that tokens are checked with. */}}
{{- define "noti.tokensEnv" -}}
{{- with .Values.tokens }}
{{- if .existingSecret }}
{{- if .publisherKey }}
- name: NOTI_PUBLISHER_JWT_KEY_FILE
  value: /etc/noti/tokens/{{ .publisherKey }}
{{- with .publisherAlg }}
- name: NOTI_PUBLISHER_JWT_ALG
  value: {{ . }}
{{- end }}
{{- end }}
{{- if .subscriberKey }}
- name: NOTI_SUBSCRIBER_JWT_KEY_FILE
  value: /etc/noti/tokens/{{ .subscriberKey }}
{{- with .subscriberAlg }}
- name: NOTI_SUBSCRIBER_JWT_ALG
  value: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Whether some stream is read as what `noti publish` sends. */}}
{{- define "noti.takesCategory" -}}
{{- $config := .Values.config -}}
{{- if $config.nats_streams -}}
{{- contains "\"decoder\":\"category\"" (toJson $config.nats_streams) -}}
{{- else -}}
{{- $default := ternary "category" "text" (eq ($config.nats_stream | default "jobs") "jobs") -}}
{{- eq ($config.nats_decoder | default $default) "category" -}}
{{- end -}}
{{- end -}}

{{/* The file of further settings. JSON's strings, numbers, booleans and arrays are TOML's too; only
     whole numbers must not become floats. What is null is not set. Tables come last, as what follows
     one belongs to it. */}}
{{- define "noti.toml" -}}
{{- range $name, $value := omit .Values.config "nats_streams" }}
{{- if kindIs "float64" $value }}
{{ $name }} = {{ if eq (float64 (int64 $value)) $value }}{{ int64 $value }}{{ else }}{{ $value }}{{ end }}
{{- else if not (kindIs "invalid" $value) }}
{{ $name }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- with .Values.config.nats_streams }}
{{ toToml (dict "nats_streams" .) }}
{{- end }}
{{- end -}}

{{/* What identifies the login at NATS at this moment. Empty without a cluster to ask. */}}
{{- define "noti.loginChecksum" -}}
{{- if .Values.nats.auth.existingSecret -}}
{{- with lookup "v1" "Secret" .Release.Namespace .Values.nats.auth.existingSecret -}}
{{- toJson .data | sha256sum -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "noti.probe" -}}
httpGet:
  path: {{ .path }}
  port: ops
{{ toYaml .timing }}
{{- end -}}
