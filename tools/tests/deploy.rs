//! The files of `tools/deploy`: they parse, name only what exists, and keep the rules that keys ask for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hybster_proto::output::Reject;
use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

#[path = "../src/document.rs"]
mod document;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

/// The metrics of METRICS.md, which a test of the program holds to the code.
fn metrics() -> BTreeSet<&'static str> {
    let rows = include_str!("../METRICS.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next())
        .filter(|name| name.starts_with("hybster_"))
        .collect()
}

/// The names of metrics in an expression of Prometheus.
fn names(expression: &str) -> Vec<&str> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c: char| !in_name(c));
    words.filter(|word| word.starts_with("hybster_")).collect()
}

/// The panels of a dashboard that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels.iter().filter(|panel| panel["type"] != "row").collect()
}

#[test]
fn the_dashboard_asks_only_for_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&text("grafana.json")).unwrap();
    let known = metrics();
    assert!(known.len() > 40, "{known:?}");
    let mut asked = BTreeSet::new();
    for panel in panels(&dashboard) {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel} shows nothing");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let found = names(expression);
            assert!(!found.is_empty(), "{expression}");
            assert_eq!(expression.matches('(').count(), expression.matches(')').count());
            asked.extend(found);
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        asked.extend(names(variable["query"]["query"].as_str().unwrap_or_default()));
    }
    let unknown: Vec<_> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "METRICS.md has no {unknown:?}");
    assert!(asked.len() > 20, "the dashboard shows little: {asked:?}");
}

/// Grafana shows one of two panels with the same number, and draws over those that overlap.
#[test]
fn panels_have_numbers_and_places_of_their_own() {
    let dashboard: Value = serde_json::from_str(&text("grafana.json")).unwrap();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(places.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
    }
}

#[test]
fn the_operations_guide_alarms_only_on_metrics_that_exist() {
    let known = metrics();
    let guide = include_str!("../OPERATIONS.md");
    let asked: BTreeSet<&str> = names(guide).into_iter().collect();
    let unknown: Vec<_> = asked.difference(&known).collect();
    assert!(asked.len() > 15 && unknown.is_empty(), "METRICS.md has no {unknown:?}");
}

fn alerts() -> Vec<Value> {
    let rules = YamlLoader::load_from_str(&text("prometheus-alerts.yaml")).unwrap();
    let rules = plain(&rules[0]);
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn alerts_ask_for_metrics_that_exist_and_say_what_to_do() {
    let known = metrics();
    let mut table = String::from(
        "| Alarm | If, and for how long | Meaning | What to do |\n|---|---|---|---|\n",
    );
    let alerts = alerts();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        fields(alert, &["alert", "expr", "labels", "annotations"], &["for"]);
        fields(&alert["annotations"], &["summary", "action"], &[]);
        fields(&alert["labels"], &["severity"], &[]);
        let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let expression = of(&alert["expr"]);
        let unknown: Vec<_> =
            names(&expression).into_iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "METRICS.md has no {unknown:?}");
        let wait = match of(&alert["for"]) {
            wait if wait.is_empty() => wait,
            wait => format!(", {wait}"),
        };
        table += &format!(
            "| {} | `{}`{wait} | {} | {} |\n",
            of(&alert["alert"]).trim_start_matches("Hybster"),
            expression.replace('|', "\\|"),
            of(&alert["annotations"]["summary"]),
            of(&alert["annotations"]["action"]),
        );
    }
    document::has_part("OPERATIONS.md", "alarms", &table);
    // What only a faulty sender sends, by the code.
    let faults: Vec<String> = Reject::ALL
        .iter()
        .filter(|reason| reason.is_fault())
        .map(|reason| format!("{reason:?}"))
        .collect();
    let of_faults = format!("reason=~\"{}\"", faults.join("|"));
    assert!(
        alerts.iter().any(|it| it["expr"].as_str().unwrap().contains(&of_faults)),
        "{of_faults}"
    );
}

/// By Prometheus itself, where it is installed.
#[test]
fn prometheus_takes_the_alerts() {
    let file = file("prometheus-alerts.yaml");
    match Command::new("promtool").args(["check", "rules", file.to_str().unwrap()]).output() {
        Err(_) => println!("SKIPPED: promtool is not installed"),
        Ok(output) => assert!(output.status.success(), "{output:?}"),
    }
}

/// The settings of a unit, sections apart.
fn settings(unit: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            found.push((section.clone(), key.to_owned(), value.to_owned()));
        }
    }
    found
}

/// The options that a command line of `hybster replica` has.
fn options_exist(line: &[&str]) {
    let help = Command::new(env!("CARGO_BIN_EXE_hybster")).args(["replica", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let options = line.iter().filter_map(|word| word.split('=').next());
    for option in options.filter(|word| word.starts_with("--")) {
        let known = help.split_whitespace().any(|word| word.trim_end_matches(',') == option);
        assert!(known, "hybster replica has no {option}");
    }
}

#[test]
fn the_unit_has_readiness_a_watchdog_and_no_more_rights_than_it_needs() {
    let all = settings(&text("hybster-replica@.service"));
    let of = |key: &str| -> Vec<&str> {
        all.iter().filter(|it| it.1 == key).map(|it| it.2.as_str()).collect()
    };
    assert_eq!((of("Type"), of("NotifyAccess")), (vec!["notify"], vec!["main"]));
    assert!(of("WatchdogSec")[0].parse::<u64>().unwrap() >= 10);
    assert_eq!(of("Restart"), ["on-failure"]);
    // Wrong options, and no other end: the program's help says which status that is.
    assert_eq!(of("RestartPreventExitStatus"), ["2"]);
    assert_eq!(of("CapabilityBoundingSet"), [""]);
    for key in ["NoNewPrivileges", "PrivateDevices", "MemoryDenyWriteExecute", "ProtectHome"] {
        assert_eq!(of(key), ["yes"], "{key}");
    }
    assert_eq!((of("ProtectSystem"), of("UMask")), (vec!["strict"], vec!["0077"]));
    assert_eq!(of("LimitCORE"), ["0"], "a core would hold the keys");
    let start: Vec<&str> = of("ExecStart")[0].split(' ').collect();
    assert_eq!(start[1], "replica");
    options_exist(&start);
}

/// By systemd itself, where it is installed.
#[test]
fn systemd_takes_the_unit() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("SKIPPED: systemd-analyze is not installed");
        return;
    }
    // It wants the program to be there.
    let dir = tempfile::tempdir().unwrap();
    let unit = text("hybster-replica@.service")
        .replace("/usr/local/bin/hybster", env!("CARGO_BIN_EXE_hybster"));
    let path = dir.path().join("hybster-replica@0.service");
    fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no", path.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about: Vec<&str> = said.lines().filter(|line| line.contains("hybster")).collect();
    assert!(output.status.success() && about.is_empty(), "{said}");
}

#[test]
fn the_image_is_built_by_the_toolchain_of_the_workspace_and_runs_without_rights() {
    let text = text("Containerfile");
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let of = |name: &str| -> Vec<&str> {
        lines.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
    };
    let known = ["FROM", "RUN", "WORKDIR", "COPY", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"];
    for line in &lines {
        assert!(known.iter().any(|name| line.starts_with(name)), "{line}");
    }
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert!(of("FROM")[0].contains(&format!("rust:{version}-")), "{:?} {version}", of("FROM"));
    assert_eq!(of("FROM").len(), 2, "the compiler is not in the image");
    assert!(of("RUN")[1].contains("--locked"));
    // The last one counts.
    assert_eq!(of("USER"), ["10001:10001"]);
    let entry: Vec<String> = serde_json::from_str(of("ENTRYPOINT")[0]).unwrap();
    assert_eq!(entry, ["/usr/local/bin/hybster"]);
}

/// YAML without what JSON does not have.
fn plain(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::String(text) => json!(text),
        Yaml::Integer(number) => json!(number),
        Yaml::Boolean(value) => json!(value),
        Yaml::Null => Value::Null,
        Yaml::Array(items) => items.iter().map(plain).collect(),
        Yaml::Hash(fields) => fields
            .iter()
            .map(|(key, value)| (key.as_str().unwrap().to_owned(), plain(value)))
            .collect(),
        other => panic!("{other:?} is not expected in a manifest"),
    }
}

/// The fields of an object are among these, the first of which must be there.
fn fields(object: &Value, required: &[&str], optional: &[&str]) {
    let found: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    for name in required {
        assert!(found.contains(name), "{name} is missing in {object}");
    }
    for name in found {
        assert!(required.contains(&name) || optional.contains(&name), "no field {name}: {object}");
    }
}

fn manifests() -> Vec<Value> {
    let text = text("kubernetes.yaml");
    YamlLoader::load_from_str(&text).unwrap().iter().map(plain).collect()
}

/// A part of the schema of Kubernetes: the fields that the manifests use, where they belong.
#[test]
fn the_manifests_have_the_fields_that_kubernetes_knows() {
    let manifests = manifests();
    let kinds: Vec<&str> = manifests.iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Service", "PodDisruptionBudget", "StatefulSet"]);
    for manifest in &manifests {
        fields(manifest, &["apiVersion", "kind", "metadata", "spec"], &[]);
    }
    let [service, budget, set] = &manifests[..] else { unreachable!() };
    assert_eq!(service["apiVersion"], "v1");
    fields(&service["spec"], &["selector", "ports"], &["clusterIP", "publishNotReadyAddresses"]);
    assert_eq!(budget["apiVersion"], "policy/v1");
    fields(&budget["spec"], &["selector"], &["maxUnavailable"]);
    assert_eq!(set["apiVersion"], "apps/v1");
    fields(
        &set["spec"],
        &["serviceName", "replicas", "selector", "template", "volumeClaimTemplates"],
        &["podManagementPolicy", "updateStrategy", "persistentVolumeClaimRetentionPolicy"],
    );
    let pod = &set["spec"]["template"]["spec"];
    fields(
        pod,
        &["containers"],
        &[
            "initContainers",
            "affinity",
            "securityContext",
            "terminationGracePeriodSeconds",
            "automountServiceAccountToken",
        ],
    );
    fields(
        &pod["securityContext"],
        &["runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup"],
        &["fsGroupChangePolicy", "seccompProfile"],
    );
    let containers = [&pod["containers"], &pod["initContainers"]];
    for container in containers.into_iter().flat_map(|it| it.as_array().unwrap()) {
        fields(
            container,
            &["name", "image", "securityContext", "resources", "volumeMounts"],
            &["command", "args", "env", "ports", "readinessProbe", "livenessProbe"],
        );
        fields(&container["resources"], &["requests", "limits"], &[]);
        fields(
            &container["securityContext"],
            &["allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"],
            &[],
        );
    }
    fields(
        &set["spec"]["volumeClaimTemplates"][0]["spec"],
        &["accessModes", "resources"],
        &["storageClassName"],
    );
}

#[test]
fn the_manifests_agree_with_each_other_and_with_the_program() {
    let manifests = manifests();
    let [service, budget, set] = &manifests[..] else { panic!("three manifests") };
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    for selector in [
        &service["spec"]["selector"],
        &budget["spec"]["selector"]["matchLabels"],
        &set["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    assert_eq!(set["spec"]["serviceName"], service["metadata"]["name"]);
    // Alone, none is ready: they must find each other before, and start side by side.
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    assert_eq!(set["spec"]["podManagementPolicy"], "Parallel");
    // As many as n - f must run.
    assert_eq!(
        (&set["spec"]["replicas"], &budget["spec"]["maxUnavailable"]),
        (&json!(3), &json!(1))
    );
    // What a replica has done is on its volume only, and comes from no Secret.
    let policy = &set["spec"]["persistentVolumeClaimRetentionPolicy"];
    assert_eq!(
        (&policy["whenDeleted"], &policy["whenScaled"]),
        (&json!("Retain"), &json!("Retain"))
    );
    let text = text("kubernetes.yaml").to_lowercase();
    assert!(!text.contains("kind: secret") && !text.contains("secretname"));

    let replica = &set["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<&str> =
        replica["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(args[0], "replica");
    options_exist(&args);
    let port = |name: &str, of: &Value, key: &str| {
        let ports = of.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
        ports[key].as_u64().unwrap()
    };
    for (name, option) in [("replica", "--listen="), ("metrics", "--metrics=")] {
        let address = args.iter().find_map(|arg| arg.strip_prefix(option)).unwrap();
        let number: u64 = address.rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(port(name, &replica["ports"], "containerPort"), number);
        assert_eq!(port(name, &service["spec"]["ports"], "port"), number);
    }
    for (probe, path) in [("readinessProbe", "/ready"), ("livenessProbe", "/health")] {
        assert_eq!(replica[probe]["httpGet"], json!({ "path": path, "port": "metrics" }));
    }
    let user = &set["spec"]["template"]["spec"]["securityContext"]["runAsUser"];
    assert!(self::text("Containerfile").contains(&format!("USER {user}:{user}")));
}
