//! docs/result.schema.json is made of the types of a result, and every result keeps to it. `WRITE_SCHEMA=1 cargo test -p load schema`
//! writes it.

#![allow(clippy::unwrap_used, reason = "tests")]

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::report::{Report, full_report};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/result.schema.json");

fn made() -> Value {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Report>();
    let mut schema = schema.to_value();
    schema["title"] = "result.json of a Mesh Bench run".into();
    schema["properties"]["schema"]["const"] = crate::report::SCHEMA.into();
    schema
}

#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let wanted = format!("{}\n", serde_json::to_string_pretty(&made()).unwrap());
    if std::env::var_os("WRITE_SCHEMA").is_some() {
        std::fs::write(PATH, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(PATH).unwrap();
    assert!(found == wanted, "docs/result.schema.json is stale: WRITE_SCHEMA=1 cargo test -p load schema");
}

#[test]
fn a_result_in_which_everything_has_happened_keeps_to_the_schema() {
    let validator = jsonschema::validator_for(&made()).unwrap();
    let mut result = serde_json::to_value(full_report()).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(&result).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    result["totals"]["total"] = "many".into();
    assert!(!validator.is_valid(&result), "the schema allows anything");
    result.as_object_mut().unwrap().remove("verdict");
    assert_eq!(validator.iter_errors(&result).count(), 2);
}
