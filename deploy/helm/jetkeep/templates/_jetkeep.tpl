{{- define "jetkeep.labels" -}}
app.kubernetes.io/name: jetkeep
app.kubernetes.io/part-of: jetkeep
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "jetkeep.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "jetkeep.secret" -}}
{{ .Values.credentials.existingSecret | default "jetkeep-credentials" }}
{{- end }}

{{/* A TOML value. */}}
{{- define "jetkeep.value" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true }}{{ range $key, $value := . }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ $key }} = {{ include "jetkeep.value" $value }}{{ end -}} }
{{- else if kindIs "slice" . -}}
[{{- $first := true }}{{ range . }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ include "jetkeep.value" . }}{{ end -}}]
{{- else if kindIs "float64" . -}}
{{ int64 . }}
{{- else -}}
{{ . | toJson }}
{{- end -}}
{{- end }}

{{/* [group.name] tables. The first repository is the one that commands use: `local`, if there is one. */}}
{{- define "jetkeep.tables" -}}
{{- $group := .group }}
{{- $names := keys .tables | sortAlpha }}
{{- if has "local" $names }}{{ $names = prepend (without $names "local") "local" }}{{ end }}
{{- range $name := $names }}
[{{ $group }}.{{ $name }}]
{{- range $key, $value := get $.tables $name }}
{{ $key }} = {{ include "jetkeep.value" $value }}
{{- end }}
{{ end }}
{{- end }}

{{- define "jetkeep.toml" -}}
{{- if .Values.toml -}}
{{ .Values.toml }}
{{- else -}}
{{ include "jetkeep.tables" (dict "group" "repositories" "tables" .Values.repositories) }}
{{- include "jetkeep.tables" (dict "group" "sources" "tables" .Values.sources) }}
{{- include "jetkeep.tables" (dict "group" "notifications" "tables" .Values.notifications) }}
{{- range $name, $table := dict "metrics" .Values.metrics "heartbeat" .Values.heartbeat }}
{{- if $table }}
[{{ $name }}]
{{- range $key, $value := $table }}
{{ $key }} = {{ include "jetkeep.value" $value }}
{{- end }}
{{ end }}
{{- end }}
{{- if .Values.agent.enabled }}
[agent]
listen = "0.0.0.0:9750"
{{- range $kind, $one := .Values.schedules }}
{{- if not $one.suspend }}
[schedules.{{ $kind }}]
cron = {{ $one.cron | toJson }}
time-zone = {{ $.Values.timeZone | toJson }}
arguments = {{ include "jetkeep.value" $one.arguments }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A pod's spec; takes root and args. */}}
{{- define "jetkeep.pod" -}}
{{- with .root }}
serviceAccountName: {{ .Values.serviceAccount.name }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.priorityClass.name }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: 30
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
containers:
  - name: jetkeep
    image: {{ include "jetkeep.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ toJson .args }}
    env:
      - {name: JETKEEP_CONFIG, value: /etc/jetkeep/jetkeep.toml}
      {{- if .sharded }}
      - name: JOB_NAME
        valueFrom:
          fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}
      {{- end }}
      {{- with .root.Values.nats.boxContexts }}
      {{- if .secretName }}
      - {name: XDG_CONFIG_HOME, value: /etc/jetkeep-contexts}
      - {name: NATS_CONTEXT, value: {{ .context | quote }}}
      {{- end }}
      {{- end }}
    envFrom:
      - secretRef: {name: {{ include "jetkeep.secret" .root }}}
    {{- with .container }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    resources: {{ toYaml .root.Values.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      {{- if .root.Values.persistence.enabled }}
      - {name: backups, mountPath: /backups}
      {{- end }}
      - {name: config, mountPath: /etc/jetkeep, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- with .root.Values.nats.boxContexts }}
      {{- if .secretName }}
      - {name: contexts, mountPath: /etc/jetkeep-contexts/nats/context, readOnly: true}
      {{- end }}
      {{- if .contentsSecretName }}
      - {name: contents, mountPath: /etc/nats-contents, readOnly: true}
      {{- end }}
      {{- end }}
volumes:
  {{- if .root.Values.persistence.enabled }}
  - name: backups
    persistentVolumeClaim: {claimName: {{ .root.Values.persistence.existingClaim | default "jetkeep-backups" }}}
  {{- end }}
  - name: config
    configMap: {name: jetkeep-config}
  - name: tmp
    emptyDir: {}
  {{- with .root.Values.nats.boxContexts }}
  {{- if .secretName }}
  - name: contexts
    secret: {secretName: {{ .secretName }}}
  {{- end }}
  {{- if .contentsSecretName }}
  - name: contents
    secret: {secretName: {{ .contentsSecretName }}}
  {{- end }}
  {{- end }}
{{- end }}

{{/* An object with `merge` laid over it, then changed by the operations of `patch` (JSON Patch: add, remove, replace). */}}
{{- define "jetkeep.laid" -}}
{{- $object := mergeOverwrite (fromYaml .object) (.merge | default dict) }}
{{- range .patch }}
{{- $parts := splitList "/" (trimPrefix "/" .path) }}
{{- $object = (include "jetkeep.patched" (dict "in" $object "parts" $parts "operation" .) | fromJson).out }}
{{- end }}
{{ toYaml $object }}
{{- end }}

{{/* {"out": the value with the operation done at the path whose parts are left}. */}}
{{- define "jetkeep.patched" -}}
{{- $in := .in }}
{{- $op := .operation }}
{{- $key := first .parts | replace "~1" "/" | replace "~0" "~" }}
{{- $last := eq (len .parts) 1 }}
{{- $here := dict "parts" (rest .parts) "operation" $op }}
{{- $out := $in }}
{{- if kindIs "map" $in }}
  {{- if and (not (hasKey $in $key)) (not (and $last (eq $op.op "add"))) }}{{ fail (printf "patch: there is nothing at %s" $op.path) }}{{ end }}
  {{- if not $last }}{{ $out = set $in $key ((include "jetkeep.patched" (set $here "in" (get $in $key))) | fromJson).out }}
  {{- else if eq $op.op "remove" }}{{ $out = omit $in $key }}
  {{- else }}{{ $out = set $in $key $op.value }}{{ end }}
{{- else if kindIs "slice" $in }}
  {{- if and $last (eq $op.op "add") (eq $key "-") }}{{ $out = append $in $op.value }}
  {{- else }}
    {{- $at := atoi $key }}
    {{- $adds := and $last (eq $op.op "add") }}
    {{- if or (ne (toString $at) $key) (lt $at 0) (gt $at (len $in)) (and (eq $at (len $in)) (not $adds)) }}{{ fail (printf "patch: there is nothing at %s" $op.path) }}{{ end }}
    {{- $out = slice $in 0 $at }}
    {{- if not $last }}{{ $out = append $out ((include "jetkeep.patched" (set $here "in" (index $in $at))) | fromJson).out }}
    {{- else if ne $op.op "remove" }}{{ $out = append $out $op.value }}{{ end }}
    {{- $out = concat $out (slice $in ($adds | ternary $at (add1 $at | int))) }}
  {{- end }}
{{- else }}{{ fail (printf "patch: there is nothing at %s" $op.path) }}
{{- end }}
{{- dict "out" $out | toJson }}
{{- end }}

{{- define "jetkeep.cronjob" -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{ include "jetkeep.labels" .root | nindent 4 }}
spec:
  schedule: {{ .cron | quote }}
  suspend: {{ .suspend }}
  timeZone: {{ .root.Values.timeZone }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    metadata:
      labels: {{ include "jetkeep.labels" .root | nindent 8 }}
    spec:
      backoffLimit: {{ .sharded | ternary 8 2 }}
      activeDeadlineSeconds: 14400
      ttlSecondsAfterFinished: 86400
      {{- if .sharded }}
      completionMode: Indexed
      completions: {{ .root.Values.shards }}
      parallelism: {{ .root.Values.shards }}
      {{- end }}
      template:
        metadata:
          labels: {{ include "jetkeep.labels" .root | nindent 12 }}
            {{- with .root.Values.podLabels }}{{ toYaml . | nindent 12 }}{{ end }}
          {{- with .root.Values.podAnnotations }}
          annotations: {{ toYaml . | nindent 12 }}
          {{- end }}
        spec:
          restartPolicy: Never
          {{- include "jetkeep.pod" (dict "root" .root "args" .args "sharded" .sharded) | nindent 10 }}
{{- end }}

{{- define "jetkeep.claim" }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: jetkeep-backups
  namespace: {{ .Release.Namespace }}
  labels: {{ include "jetkeep.labels" . | nindent 4 }}
  {{- if .Values.persistence.keep }}
  annotations: {helm.sh/resource-policy: keep}
  {{- end }}
spec:
  accessModes: {{ toJson .Values.persistence.accessModes }}
  {{- with .Values.persistence.storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .Values.persistence.size }}
{{- end }}

{{- define "jetkeep.network" }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: jetkeep
  namespace: {{ .Release.Namespace }}
  labels: {{ include "jetkeep.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: jetkeep
  policyTypes: [Ingress, Egress]
  ingress:
    - ports:
        - {port: 9750, protocol: TCP}
  egress:
    - ports:
        - {port: 53, protocol: UDP}
        - {port: 53, protocol: TCP}
        - {port: 4222, protocol: TCP}
        - {port: 443, protocol: TCP}
    {{- with .Values.networkPolicy.extraEgress }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end }}

{{- define "jetkeep.process" }}
{{- $root := .root }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: jetkeep-{{ .component }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{ include "jetkeep.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  replicas: {{ .replicas }}
  strategy: {type: Recreate}
  selector:
    matchLabels:
      app.kubernetes.io/name: jetkeep
      app.kubernetes.io/component: {{ .component }}
  template:
    metadata:
      labels: {{ include "jetkeep.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
        {{- with $root.Values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with $root.Values.podAnnotations }}
      annotations: {{ toYaml . | nindent 8 }}
      {{- end }}
    spec: {{ include "jetkeep.pod" . | nindent 6 }}
{{- end }}
