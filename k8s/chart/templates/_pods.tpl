{{/* Parts of the nodes' pods. */}}
{{- define "noti.volumes" -}}
{{- if not .Values.persistence.enabled }}
- name: data
  emptyDir: {}
{{- end }}
{{- if .Values.config }}
- name: config
  configMap:
    name: {{ include "noti.fullname" . }}
{{- end }}
{{- with include "noti.natsVolumes" . | trim }}
{{ . }}
{{- end }}
{{- with .Values.tokens.existingSecret }}
- name: token-keys
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
- name: gossip
  secret:
    secretName: {{ include "noti.gossipSecret" . }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.gossip.key | quote }}, path: keys}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "noti.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- if .Values.httpTls.enabled }}
- name: http-tls
  secret:
    secretName: {{ include "noti.httpTlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Pods of one component on different machines. Call with (dict "root" . "component" "node"). */}}
{{- define "noti.apart" -}}
topologyKey: kubernetes.io/hostname
labelSelector:
  matchLabels: {{- include "noti.selectorLabels" . | nindent 4 }}
{{- end -}}

{{- define "noti.softlyApart" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm: {{- include "noti.apart" . | nindent 8 }}
{{- end -}}

{{- define "noti.affinity" -}}
{{- $nodes := dict "root" . "component" "node" -}}
{{- if .Values.affinity }}
{{- toYaml .Values.affinity }}
{{- else if eq .Values.antiAffinity "hard" }}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - {{- include "noti.apart" $nodes | nindent 6 }}
{{- else if eq .Values.antiAffinity "soft" }}
{{- include "noti.softlyApart" $nodes }}
{{- end }}
{{- end -}}

{{- define "noti.operatorAffinity" -}}
{{- if .Values.operator.affinity }}
{{- toYaml .Values.operator.affinity }}
{{- else }}
{{- include "noti.softlyApart" (dict "root" . "component" "operator") }}
{{- end }}
{{- end -}}

{{- define "noti.spread" -}}
{{- if ne .Values.zoneSpread "none" }}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: {{ .Values.zoneSpread }}
  labelSelector:
    matchLabels: {{- include "noti.selectorLabels" (dict "root" . "component" "node") | nindent 6 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
{{ toYaml . }}
{{- end }}
{{- end -}}
