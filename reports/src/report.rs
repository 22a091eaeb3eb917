//! Writes a bundle's report: page, tables, samples and charts.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{
    agreement, bundle::Bundle, charts, csv, error::ReportError, html, md, samples, view::View,
};

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFiles {
    /// The page for people.
    pub html: PathBuf,
    /// Every row, unrounded.
    pub csv: PathBuf,
    /// The comparison as GitHub tables.
    pub markdown: PathBuf,
    /// Every token and item.
    pub samples: PathBuf,
    /// Every cell of an agreement, where there is one.
    pub agreement: Option<PathBuf>,
    /// The charts of the page, each in a file.
    pub charts: Vec<PathBuf>,
}

/// Writes the report of the bundle in `bundle_dir` into `out_dir`, which is made where it is missing
/// and may be the bundle's own folder.
///
/// Nothing is written before everything is rendered. Each file replaces its predecessor at once,
/// `report.html` last, so that a page never speaks of files that are not there.
pub fn write_report(bundle_dir: &Path, out_dir: &Path) -> Result<ReportFiles, ReportError> {
    let bundle = Bundle::read(bundle_dir)?;
    let rows = crate::summary::rows(&bundle);
    let view = View::new(&bundle, &rows);
    let charts = charts::charts(&bundle, &rows)?;
    let page = html::render(&view, &charts)?;
    let markdown = md::render(&view);
    let table = csv::render(&rows)?;
    let samples = samples::render(&bundle)?;
    let cells = agreement::table(&bundle)?;

    let charts_dir = out_dir.join("charts");
    fs::create_dir_all(&charts_dir).map_err(|source| ReportError::Write {
        path: charts_dir.clone(),
        source,
    })?;
    let mut files = ReportFiles {
        html: out_dir.join("report.html"),
        csv: out_dir.join("summary.csv"),
        markdown: out_dir.join("summary.md"),
        samples: out_dir.join(samples::NAME),
        agreement: cells.is_some().then(|| out_dir.join(agreement::CSV)),
        charts: Vec::new(),
    };
    for chart in &charts {
        let path = charts_dir.join(&chart.svg.file_name);
        replace(&path, chart.svg.file().as_bytes())?;
        files.charts.push(path);
    }
    remove_stale(&charts_dir, &files.charts)?;
    replace(&files.csv, &table)?;
    replace(&files.markdown, markdown.as_bytes())?;
    replace(&files.samples, &samples)?;
    match cells {
        Some(cells) => replace(&out_dir.join(agreement::CSV), &cells)?,
        None => remove_earlier(&out_dir.join(agreement::CSV))?,
    }
    replace(&files.html, page.as_bytes())?;
    Ok(files)
}

/// Writes a file beside its place and moves it there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = fs::File::create(&part)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&part, path));
    written.map_err(|source| {
        // The original error is the one to tell; a part left behind is overwritten next time.
        let _ = fs::remove_file(&part);
        ReportError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

/// Removes a file of an earlier report, where there is one.
fn remove_earlier(path: &Path) -> Result<(), ReportError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ReportError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Removes charts of an earlier report; other files in the folder are not ours.
fn remove_stale(dir: &Path, kept: &[PathBuf]) -> Result<(), ReportError> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if !kept.contains(&path) && is_chart_name(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    };
    remove().map_err(|source| ReportError::Write {
        path: dir.to_owned(),
        source,
    })
}

/// Tells whether a file is named as our charts are: `01-decode-speed.svg`.
fn is_chart_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_suffix(".svg"))
        .and_then(|stem| stem.split_once('-'))
        .is_some_and(|(number, _)| {
            number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests;
