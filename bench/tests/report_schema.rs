//! `report.schema.json` says exactly what reports are. The tests of processes check every report that
//! they make against it as well.

mod support;

use std::path::PathBuf;

use hybster_bench::compare::{Group, of_groups};
use hybster_bench::knee::{KneeReport, KneeStep};
use hybster_bench::machine::Machine;
use hybster_bench::profile::{IdleReport, ProcessProfile, ProfileReport};
use hybster_bench::report::{FORMAT, RunReport};
use hybster_bench::sweep::{Point, SweepReport};
use serde::Serialize;
use serde_json::{Map, Value};
use support::schema::Schema;

const RUN: &str = include_str!("fixtures/run-report.json");
const FAULT: &str = include_str!("fixtures/fault-report.json");

fn run() -> RunReport {
    serde_json::from_str(RUN).unwrap()
}

fn json(report: &impl Serialize) -> Value {
    serde_json::to_value(report).unwrap()
}

/// A report of each kind with every field set, as the program writes it.
fn reports() -> Vec<Value> {
    let machine = Machine::here;
    let group = |name: &str, runs: Vec<RunReport>| Group::of_runs(name, &runs);
    let runs = || vec![run(), run(), run()];
    let comparison = of_groups(&[group("a", runs()), group("b", runs())]).unwrap();
    let knee = KneeReport {
        format: FORMAT,
        kind: "knee".into(),
        objective: "p99<5ms".into(),
        rate_ops_s: Some(1e5),
        bad_rate_ops_s: Some(2e5),
        interrupted: false,
        closed_loop: Some(run()),
        steps: vec![KneeStep { rate_ops_s: 1e5, good: true, run: run() }],
        machine: machine(),
    };
    let sweep = SweepReport {
        format: FORMAT,
        kind: "sweep".into(),
        over: "clients".into(),
        repeat: 3,
        interrupted: true,
        points: vec![Point::new("1".into(), runs())],
        machine: machine(),
    };
    let profile = ProfileReport {
        format: FORMAT,
        kind: "profile".into(),
        seconds: 5.0,
        frequency: 997,
        out: PathBuf::from("flamegraphs"),
        missing: Some("inferno".into()),
        processes: vec![ProcessProfile {
            name: "load".into(),
            measured_ns_per_op: 1.5,
            sampled_ns_per_op: 1.25,
            samples: 7,
            system_calls_per_op: Some(0.5),
            ns_per_op: [("idle".to_owned(), 1.0)].into(),
        }],
        run: run(),
    };
    let idle = IdleReport {
        format: FORMAT,
        kind: "idle".into(),
        seconds: 1.0,
        processes: run().processes,
        config: run().config,
        machine: machine(),
    };
    let fault = serde_json::from_str(FAULT).unwrap();
    vec![
        json(&run()),
        fault,
        json(&comparison),
        json(&knee),
        json(&sweep),
        json(&profile),
        json(&idle),
    ]
}

#[test]
fn reports_of_every_kind_are_as_the_schema_says() {
    let schema = Schema::of_reports();
    let reports = reports();
    reports.iter().for_each(|report| schema.expect(report));
    let choices = schema.json()["oneOf"].as_array().unwrap();
    assert_eq!(reports.len(), choices.len(), "a kind of report has no test here");
    // The version is that of the reports.
    assert_eq!(schema.json()["$defs"]["format"]["const"], FORMAT);
    assert_eq!(schema.json()["$id"], format!("urn:hybster-bench:report:{FORMAT}"));
}

/// The places of all objects whose fields have fixed names, and of their fields.
fn fields(value: &Value, place: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (name, member) in object {
                // Their keys are names of kinds and of activities.
                if !["/errors_by_kind", "/ns_per_op"].iter().any(|map| place.ends_with(map)) {
                    found.push((place.to_owned(), name.clone()));
                }
                fields(member, &format!("{place}/{name}"), found);
            }
        }
        // All items have the same form.
        Value::Array(items) => items.iter().take(1).for_each(|item| {
            fields(item, &format!("{place}/0"), found);
        }),
        _ => {}
    }
}

#[test]
fn a_field_that_is_missing_unknown_or_of_another_type_is_found() {
    let schema = Schema::of_reports();
    // No field is such a thing.
    let nested = serde_json::json!([[[]]]);
    for report in reports() {
        let mut all = Vec::new();
        fields(&report, "", &mut all);
        assert!(all.len() > 10);
        for (place, name) in all {
            let changed = |change: &dyn Fn(&mut Map<String, Value>)| {
                let mut report = report.clone();
                change(report.pointer_mut(&place).unwrap().as_object_mut().unwrap());
                schema.check(&report)
            };
            let refused = |what: &str, wrong: Vec<String>| {
                assert!(!wrong.is_empty(), "{} {place}/{name}: {what}", report["kind"]);
            };
            refused("missing", changed(&|object| drop(object.remove(&name))));
            refused("unknown", changed(&|object| drop(object.insert("new".into(), 1.into()))));
            let other = changed(&|object| drop(object.insert(name.clone(), nested.clone())));
            refused("another type", other);
        }
    }
}

#[test]
fn what_no_report_may_say_is_found() {
    let schema = Schema::of_reports();
    let with = |place: &str, value: &str| {
        let mut report: Value = serde_json::from_str(RUN).unwrap();
        *report.pointer_mut(place).unwrap() = serde_json::from_str(value).unwrap();
        schema.check(&report).join("\n")
    };
    assert_eq!(with("/completed", "1"), "");
    for (place, value) in [
        ("/completed", "-1"),
        ("/completed", "1.5"),
        ("/kind", "\"runs\""),
        ("/format", "1"),
        ("/throughput_ops_s", "null"),
        ("/errors_by_kind/overloaded", "0"),
        ("/errors_by_kind", "{ \"unlucky\": 1 }"),
        ("/config/read_percent", "101"),
        ("/connections/0/latency_us/p50", "null"),
    ] {
        let wrong = with(place, value);
        assert!(!wrong.is_empty(), "{place} {value} is taken");
    }
}

/// Every field is always there, so every field that the schema names is required.
#[test]
fn no_field_is_optional() {
    fn check(schema: &Value) {
        if let Some(properties) = schema["properties"].as_object() {
            let mut names: Vec<&str> = properties.keys().map(String::as_str).collect();
            let mut required: Vec<&str> =
                schema["required"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
            names.sort_unstable();
            required.sort_unstable();
            assert_eq!(names, required);
            assert_eq!(schema["additionalProperties"], false);
        }
        match schema {
            Value::Object(object) => object.values().for_each(check),
            Value::Array(items) => items.iter().for_each(check),
            _ => {}
        }
    }
    check(Schema::of_reports().json());
}
