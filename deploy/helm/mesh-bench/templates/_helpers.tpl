{{/* Labels that choose this release's pods of one component: (dict "root" $ "component" "node"). */}}
{{- define "mesh-bench.selector" -}}
app.kubernetes.io/name: mesh-bench
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object itself. Templates of pods have none of the chart's version, or each new one would restart all pods. */}}
{{- define "mesh-bench.labels" -}}
{{ include "mesh-bench.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "mesh-bench.secret" -}}
{{ .Values.auth.existingSecret | default .Release.Name }}
{{- end -}}

{{- define "mesh-bench.claim" -}}
{{ .Values.results.existingClaim | default (printf "%s-results" .Release.Name) }}
{{- end -}}

{{/* A setting as text: YAML's numbers reach templates as floats, and 1000000 would become 1e+06. */}}
{{- define "mesh-bench.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- define "mesh-bench.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "mesh-bench.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Where pods may run: nodeSelector, tolerations and affinity of these values. */}}
{{- define "mesh-bench.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "mesh-bench.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* HTTP_TOKEN and HTTP_ADMIN_TOKEN, for nodes and runners alike. */}}
{{- define "mesh-bench.tokens" -}}
{{- with .Values.http.tokenSecret }}
- { name: HTTP_TOKEN, valueFrom: { secretKeyRef: { name: {{ . }}, key: http-token } } }
- { name: HTTP_ADMIN_TOKEN, valueFrom: { secretKeyRef: { name: {{ . }}, key: http-admin-token } } }
{{- end }}
{{- end -}}

{{- define "mesh-bench.otlp" -}}
{{- with .Values.otlp.endpoint }}
- { name: POD_NAMESPACE, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
- { name: OTEL_RESOURCE_ATTRIBUTES, value: "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)" }
{{- end }}
{{- end -}}
