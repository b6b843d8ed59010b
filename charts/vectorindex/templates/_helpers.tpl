{{- define "vectorindex.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* With the longest ending, `-metrics` or `-webhook`, it is the name of a Service: 63 characters at most. */}}
{{- define "vectorindex.fullname" -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name (include "vectorindex.name" .)) (contains (include "vectorindex.name" .) .Release.Name) }}
{{- default $both .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- end }}

{{- define "vectorindex.selectorLabels" -}}
app.kubernetes.io/name: {{ include "vectorindex.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "vectorindex.testLabels" -}}
app.kubernetes.io/name: {{ include "vectorindex.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "vectorindex.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "vectorindex.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: vectorindex
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "vectorindex.labels" -}}
{{- $own := include "vectorindex.ownLabels" . }}
{{- $own }}
{{- range $key, $value := .Values.commonLabels }}
{{- if not (hasKey (fromYaml $own) $key) }}
{{ toYaml (dict $key $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "vectorindex.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "vectorindex.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- $name := default "default" .Values.serviceAccount.name }}
{{- if and .Values.rbac.create (eq $name "default") }}
{{- fail "serviceAccount.name: without serviceAccount.create name an account of the operator's own, as rbac.create would give its rights to every pod that runs as `default`" }}
{{- end }}
{{- $name }}
{{- end }}
{{- end }}

{{- /* The namespaces that are served, as a JSON list; empty: all of them. Asked for by the template that is rendered first, so that an old set of values is told there. */}}
{{- define "vectorindex.namespaces" -}}
{{- if not (hasKey .Values "test") }}
{{- fail "these are the values of an earlier chart, without what has come since: upgrade with --reset-then-reuse-values instead of --reuse-values" }}
{{- end }}
{{- if and .Values.clusterWide .Values.watchNamespaces }}
{{- fail "clusterWide and watchNamespaces exclude each other: set clusterWide=true for all namespaces, or name some in watchNamespaces" }}
{{- end }}
{{- ternary list (default (list .Release.Namespace) .Values.watchNamespaces) .Values.clusterWide | toJson }}
{{- end }}

{{- /* Names of the alerts that the webhook listens to, as a JSON list */}}
{{- define "vectorindex.healingAlerts" -}}
{{- $names := list }}
{{- range (fromYaml (.Files.Get "files/alerts.yaml")).groups }}
{{- range .rules }}
{{- if eq (get .labels "heal") "validate" }}
{{- $names = append $names .alert }}
{{- end }}
{{- end }}
{{- end }}
{{- default $names .Values.webhook.alerts | toJson }}
{{- end }}

{{- /* The reference of an image: called with (dict "image" VALUES "chart" .Chart) */}}
{{- define "vectorindex.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (default .chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}

{{- /* Labels of the monitoring namespaces as key=value, comma-separated */}}
{{- define "vectorindex.monitoringLabels" -}}
{{- if not .Values.monitoring.namespaceSelector }}
{{- fail "monitoring.namespaceSelector: name at least one label, as without any every pod of the cluster could read metrics and status" }}
{{- end }}
{{- $pairs := list }}
{{- range $key, $value := .Values.monitoring.namespaceSelector }}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) }}
{{- end }}
{{- join "," $pairs }}
{{- end }}

{{- /* What the operator may do in each namespace it serves. tests/contract compares this list with the calls of the code. */}}
{{- define "vectorindex.rules" -}}
- apiGroups: [vectorindex.dev]
  resources: [vectorindexes]
  # patch: the annotation by which an alert asks for a check
  verbs: [get, list, watch{{ if .Values.webhook.enabled }}, patch{{ end }}]
- apiGroups: [vectorindex.dev]
  resources: [vectorindexes/status]
  verbs: [patch]
# OpenShift and other clusters that check owner references want this right of whoever sets blockOwnerDeletion.
- apiGroups: [vectorindex.dev]
  resources: [vectorindexes/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
# delete: those of identities that no pod uses any more
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# delete: that of an index which is scaled to one replica
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# patch: an annotation on the pod makes the kubelet bring a changed live ConfigMap at once
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}

{{- /* Metadata of an object for the Prometheus operator: called with (dict "root" $ "name" SUFFIX "of" VALUES) */}}
{{- define "vectorindex.monitoringMetadata" -}}
metadata:
  name: {{ include "vectorindex.fullname" .root }}{{ .name }}
  namespace: {{ default .root.Release.Namespace .of.namespace }}
  labels:
    {{- merge (dict) (default dict .of.labels) (include "vectorindex.labels" .root | fromYaml) | toYaml | nindent 4 }}
  {{- with .of.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* Metadata of a pod of `helm test`: called with (dict "root" $ "name" SUFFIX "namespace" NAMESPACE "labels" LABELS) */}}
{{- define "vectorindex.testMetadata" -}}
metadata:
  name: {{ include "vectorindex.fullname" .root | trunc 49 | trimSuffix "-" }}-{{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- merge (include "vectorindex.testLabels" .root | fromYaml) (default dict .labels) (include "vectorindex.labels" .root | fromYaml) | toYaml | nindent 4 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation # so that its log can be read
{{- end }}

{{- /* The rest of such a pod: called with (dict "root" $ "image" IMAGE "pullPolicy" POLICY "args" ARGUMENTS) */}}
{{- define "vectorindex.testPod" -}}
restartPolicy: Never
automountServiceAccountToken: false # it asks over HTTP only
enableServiceLinks: false
terminationGracePeriodSeconds: 1
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
containers:
  - name: test
    image: {{ .image }}
    imagePullPolicy: {{ .pullPolicy }}
    command: [python3, -c]
    args:
      - |
        {{- .root.Files.Get "files/helm_test.py" | nindent 8 }}
      {{- toYaml .args | nindent 6 }}
    securityContext:
      {{- toYaml .root.Values.containerSecurityContext | nindent 6 }}
    resources:
      requests: {cpu: 10m, memory: 32Mi}
      limits: {cpu: 500m, memory: 64Mi}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
