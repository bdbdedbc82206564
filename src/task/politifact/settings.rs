//! The keys of [task] for PolitiFact.

use super::PolitifactTask;
use super::label::Order;
use crate::BadInput;
use crate::recipe::{Politifact, Reward, Sources};
use crate::task::splits::check_files;
use crate::task::{Settings, Task};
use anyhow::Result;
use std::path::Path;

impl Settings for Politifact {
    fn sizes(&self) -> [usize; 3] {
        [self.train, self.validation, self.test]
    }

    fn describe(&self) -> String {
        let (train, test) = (self.train_file.display(), self.test_file.display());
        match &self.validation_file {
            Some(validation) => format!("from {train}, {} and {test}", validation.display()),
            None => format!("from {train}, its last {} rows for validation, and {test}", self.validation),
        }
    }

    fn check(&self, at: &Sources) -> Result<(), BadInput> {
        let mut files: Vec<(&str, &Path)> = vec![("task.train_file", &self.train_file)];
        files.extend(self.validation_file.as_deref().map(|file| ("task.validation_file", file)));
        files.push(("task.test_file", &self.test_file));
        check_files(&files, at)?;
        let order = Order::of(&self.label_order);
        order.map(|_| ()).map_err(|error| {
            let what = format!("`task.label_order` is not an order of the six ratings: {error}");
            at.bad("task.label_order", format!("{what}\nfor example {}", Order::LIAR2.written()))
        })
    }

    fn build(&self, _: &Reward) -> Result<Box<dyn Task>> {
        Ok(Box::new(PolitifactTask::new(self)?))
    }
}
