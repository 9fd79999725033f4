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

{{- define "noti.affinity" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "noti.selectorLabels" (dict "root" . "component" "node") | fromYaml)) -}}
{{- if .Values.affinity }}
{{- toYaml .Values.affinity }}
{{- else if eq .Values.antiAffinity "hard" }}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    {{- toYaml (list $term) | nindent 4 }}
{{- else if eq .Values.antiAffinity "soft" }}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    {{- toYaml (list (dict "weight" 100 "podAffinityTerm" $term)) | nindent 4 }}
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
