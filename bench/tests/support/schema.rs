//! What of JSON Schema (draft 2020-12) `report.schema.json` uses, checked. A keyword that is not known here
//! is refused, so that nothing in the schema goes unchecked.

use serde_json::{Map, Value};

/// Keywords that say nothing about a value.
const ANNOTATIONS: [&str; 5] = ["$schema", "$id", "title", "description", "$defs"];

/// A schema.
pub(crate) struct Schema(Value);

impl Schema {
    /// That of the reports.
    pub(crate) fn of_reports() -> Self {
        let text = include_str!("../../report.schema.json");
        Self(serde_json::from_str(text).expect("the schema is JSON"))
    }

    /// The schema as it is written.
    pub(crate) fn json(&self) -> &Value {
        &self.0
    }

    /// Panics with all that is wrong with a value.
    pub(crate) fn expect(&self, value: &Value) {
        let wrong = self.check(value);
        assert!(wrong.is_empty(), "not as report.schema.json says:\n{}", wrong.join("\n"));
    }

    /// What is wrong with a value: one line each, with its place.
    pub(crate) fn check(&self, value: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        self.at(&self.0, value, "", &mut wrong);
        wrong
    }

    fn at(&self, schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
        let rules = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return wrong.push(format!("{place}: nothing may be here")),
            rules => rules.as_object().expect("a schema is an object or a boolean"),
        };
        for (keyword, rule) in rules {
            let bound = || rule.as_f64().expect("a bound is a number");
            let listed = || rule.as_array().expect("a list");
            let is_right = match keyword.as_str() {
                "$ref" => {
                    self.at(self.named(rule), value, place, wrong);
                    true
                }
                "oneOf" => {
                    self.one_of(listed(), value, place, wrong);
                    true
                }
                "type" if rule.is_string() => has_type(rule, value),
                "type" => listed().iter().any(|name| has_type(name, value)),
                "const" => value == rule,
                "enum" => listed().contains(value),
                "minimum" => value.as_f64().is_none_or(|number| number >= bound()),
                "maximum" => value.as_f64().is_none_or(|number| number <= bound()),
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.at(rule, item, &format!("{place}/{number}"), wrong);
                    }
                    true
                }
                "required" => {
                    let object = value.as_object();
                    let has = |name: &&Value| {
                        let name = name.as_str().expect("a name is a string");
                        object.is_some_and(|object| object.contains_key(name))
                    };
                    for missing in listed().iter().filter(|name| !has(name) && object.is_some()) {
                        wrong.push(format!("{place}: {missing} is missing"));
                    }
                    true
                }
                "properties" | "additionalProperties" | "propertyNames" => true,
                annotation if ANNOTATIONS.contains(&annotation) => true,
                unknown => panic!("{unknown} is a keyword that this test does not know"),
            };
            if !is_right {
                wrong.push(format!("{place}: {value} is not {keyword} {rule}"));
            }
        }
        if let Value::Object(object) = value {
            self.members(rules, object, place, wrong);
        }
    }

    fn members(
        &self,
        rules: &Map<String, Value>,
        object: &Map<String, Value>,
        place: &str,
        wrong: &mut Vec<String>,
    ) {
        let properties = rules.get("properties").and_then(Value::as_object);
        for (name, value) in object {
            let place = format!("{place}/{name}");
            if let Some(rule) = rules.get("propertyNames") {
                self.at(rule, &Value::from(name.as_str()), &place, wrong);
            }
            let rule = properties.and_then(|properties| properties.get(name));
            if let Some(rule) = rule.or_else(|| rules.get("additionalProperties")) {
                self.at(rule, value, &place, wrong);
            }
        }
    }

    /// If none fits, what is wrong with the one that fits best is told.
    fn one_of(&self, choices: &[Value], value: &Value, place: &str, wrong: &mut Vec<String>) {
        let of = |choice| {
            let mut wrong = Vec::new();
            self.at(choice, value, place, &mut wrong);
            wrong
        };
        let all: Vec<Vec<String>> = choices.iter().map(of).collect();
        match all.iter().filter(|wrong| wrong.is_empty()).count() {
            1 => {}
            0 => wrong.extend(all.into_iter().min_by_key(Vec::len).unwrap_or_default()),
            several => wrong.push(format!("{place}: {several} alternatives fit, not one")),
        }
    }

    fn named(&self, reference: &Value) -> &Value {
        let path = reference.as_str().and_then(|path| path.strip_prefix('#'));
        let found = path.and_then(|path| self.0.pointer(path));
        found.unwrap_or_else(|| panic!("{reference} names nothing in the schema"))
    }
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type is a name") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("{unknown} is no type of JSON Schema"),
    }
}
