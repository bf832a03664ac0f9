//! Forecast models on the features and splits of `featurize`.

pub mod series;
