"""The methods that cut many targets out of the survey."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import TYPE_CHECKING

from .. import images, survey
from .._packages import import_optional
from ..exceptions import refuse
from ..survey.pixel_grids import DEFAULT_SIZE
from .base import SurveyBase, options_of
from .inputs import as_sources, as_targets, requests_by_row
from .position_columns import Columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Literal

    from .._typing import (
        WCS,
        Angle,
        Bands,
        ByRow,
        Executor,
        FilePath,
        HDUList,
        Header,
        Keywords,
        Mirror,
        OnMissing,
        Positions,
        Products,
        Region,
        Size,
        Table,
    )
    from ..survey.request import CutoutRequest
    from .bulk import BulkJob


NEEDED = {
    "hdf5": ("batch", "h5py"),
    "zarr": ("batch", "zarr", "pyarrow"),
    "png": ("plot", "PIL"),
    "jpeg": ("plot", "PIL"),
}


class BatchMethods(SurveyBase):
    """Cutouts of many targets."""

    def download_cutouts(
        self,
        table: Positions,
        size: ByRow[Size] = DEFAULT_SIZE,
        *,
        download_dir: FilePath,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: ByRow[str] | None = None,
        region: ByRow[Region] = "auto",
        layer: str | Sequence[str] | None = None,
        pixel_scale: ByRow[Angle] | None = None,
        wcs: ByRow[WCS | Header] | None = None,
        rotation: ByRow[Angle] | None = None,
        wise_grid: Literal["native", "optical"] = "native",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        convert_flux: bool | None = None,
        allow_unknown_layer: bool = False,
        cache: bool | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        id_column: str | None = None,
        output: Literal["fits", "hdf5", "zarr", "png", "jpeg"] = "fits",
        executor: Executor | Literal["threads", "processes"] | None = None,
        on_error: Literal["record", "raise"] = "record",
        show_progress: bool = True,
    ) -> Table:
        """Cut a box round each of many targets and keep the cutouts in a folder.

        Parameters
        ----------
        table : `~astropy.table.Table` or `~astropy.coordinates.SkyCoord`, shape (n,)
            The targets, or a table of them: of astropy or pandas, a structured array, an HDU or
            the name of a file (ECSV, CSV, FITS, VOTable, Parquet, text).  Its positions are in a
            column of SkyCoord, in two with usual names (``ra`` and ``dec``, ``RAJ2000`` and
            ``DEJ2000``, ``TARGET_RA`` ...) or with the UCDs of positions, in degrees unless they
            have another unit; else in a column of names, each looked up once.  Text with colons or
            three parts is hours and degrees.  A row that is masked, NaN or off the sky (-9999, 99)
            has no position.
        size : int, `~astropy.units.Quantity` ['angle'], str, or by row, optional
            As for `get_cutout`, or by row: the name of a column, a column, an array of n, or a
            function of the row.  A tuple of two is (ny, nx).
        download_dir : str or path-like
            The folder.  It keeps a journal: the same call again does what is left, and a different
            one is refused.
        release, region, pixel_scale, wcs, rotation : optional
            As for `get_cutout`, or by row as ``size``.
        bands, products, layer, wise_grid, source, mirror, on_missing, convert_flux, \
allow_unknown_layer, cache : optional
            As for `get_cutout`.
        ra, dec : str, optional
            Columns of ``table`` with ICRS positions, or ``ra`` alone for a column of
            `~astropy.coordinates.SkyCoord`; by default they are found by name.
        name : str, optional
            Column of ``table`` with names of objects, or positions as text.
        id_column : str, optional
            Column whose values name the files; by default ``id``, if there is one.
        output : {'fits', 'hdf5', 'zarr', 'png', 'jpeg'}, optional
            A file for each target, or arrays of many targets in HDF5 or zarr files; zarr has its
            index in parquet files beside them.  PNG and JPEG are in the survey's colours
            (`~astroquery_lis.pictures.rgb`), made from the planes.
        executor : `~concurrent.futures.Executor` or {'threads', 'processes'}, optional
            What does the work; by default threads, or processes for more than 500 MB of cutouts
            from local files.
            That of a Dask cluster is ``client.get_executor()``.
        on_error : {'record', 'raise'}, optional
            Whether a target that fails is recorded and the others go on, or ends the call.  A
            target without data is no failure.
        show_progress : bool, optional
            Whether to show a bar with rate and time left, where stderr is a terminal.

        Returns
        -------
        `~astropy.table.Table`
            One row per target, in order: ``Local Path``, ``Status`` (COMPLETE, NODATA, SKIPPED for
            a row without a position, ERROR), ``Message``, ``URL``, ``id``, ``release``,
            ``region``, ``bands``, ``layer`` (the one that answered), ``seconds``, ``bytes``,
            ``sha256``.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or the folder holds another job; nothing was sent.
        OptionalDependencyError
            If ``output`` needs h5py, or zarr and pyarrow, or pillow, and they are missing.
        TransferError
            If the tables of bricks could not be had; with ``on_error='raise'`` also the error of
            the first target that failed.

        Notes
        -----
        Targets are grouped by brick.  Each tile of a file is fetched once and decoded once in a
        job, and a file is fetched whole when more than 60 % of its tiles are needed.  Pixels are
        those of `get_cutout`.  A target whose brick the release does not have is NODATA at once.
        What the viewer has to be asked for, it is asked by four connections at most, and the log
        says beforehand how many requests and bytes that will be.  Unlike `get_cutout`,
        ``source='auto'`` never turns to the viewer because the mirrors fail: those targets are
        ERROR, and the same call tries them again.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> import tempfile
        >>> from astropy.table import Table
        >>> targets = Table({'ra': [45.09, 95.0], 'dec': [0.062, 10.0]})
        >>> with tempfile.TemporaryDirectory() as folder, sandbox.serve() as sky:
        ...     manifest = LegacySurvey.download_cutouts(
        ...         targets, 32, bands='r', download_dir=folder, show_progress=False)
        INFO: 2 cutouts: 1 complete, 1 without data, in ... s. [astroquery_lis.io.jobs]
        >>> manifest['Status'].tolist()
        ['COMPLETE', 'NODATA']
        """
        arrays = images.array_files.ARRAY_OUTPUTS
        extra, *modules = NEEDED.get(output, ("",))
        for module in modules:
            import_optional(module, extra, f"output={output!r}")
        job = self._job(survey.request.cutout_request, locals(), output)
        if output in arrays and len({(r.ny, r.nx) for r in job.whole.templates}) > 1:
            refuse("output", output, "holds cutouts of one size; take output='fits' for several.")
        return job.save(download_dir, executor, on_error, show_progress=show_progress)

    def download_psfs(
        self,
        table: Positions,
        *,
        download_dir: FilePath,
        bands: Bands | None = None,
        release: ByRow[str] | None = None,
        region: ByRow[Region] = "auto",
        to_sky: bool = False,
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        cache: bool | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        id_column: str | None = None,
        executor: Executor | Literal["threads", "processes"] | None = None,
        on_error: Literal["record", "raise"] = "record",
        show_progress: bool = True,
    ) -> Table:
        """Fetch the point spread functions at many targets and keep them in a folder.

        Parameters
        ----------
        table, download_dir, release, region, ra, dec, name, id_column, executor, on_error, \
show_progress
            As for `download_cutouts`.
        bands, to_sky, source, mirror, on_missing, cache : optional
            As for `get_psf`.

        Returns
        -------
        `~astropy.table.Table`
            One row per target, as `download_cutouts` returns it; each file is what `get_psf`
            returns.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or the folder holds another job; nothing was sent.
        TransferError
            As for `download_cutouts`.

        Notes
        -----
        The viewer is asked by four connections at most, one or two requests for each target; with
        ``source='bricks'`` the PSFs are models from the bricks' ``psfsize`` maps.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> import tempfile
        >>> from astropy.table import Table
        >>> targets = Table({'ra': [45.09, 45.1], 'dec': [0.062, 0.05]})
        >>> with tempfile.TemporaryDirectory() as folder, sandbox.serve() as sky:
        ...     manifest = LegacySurvey.download_psfs(
        ...         targets, bands='r', source='bricks', download_dir=folder, show_progress=False)
        INFO: 2 PSFs: 2 complete, in ... s. [astroquery_lis.io.jobs]
        """
        job = self._job(survey.request.psf_request, locals(), label="PSFs")
        return job.save(download_dir, executor, on_error, show_progress=show_progress)

    def iter_cutouts(
        self,
        table: Positions,
        size: ByRow[Size] = DEFAULT_SIZE,
        *,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: ByRow[str] | None = None,
        region: ByRow[Region] = "auto",
        layer: str | Sequence[str] | None = None,
        pixel_scale: ByRow[Angle] | None = None,
        wcs: ByRow[WCS | Header] | None = None,
        rotation: ByRow[Angle] | None = None,
        wise_grid: Literal["native", "optical"] = "native",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        convert_flux: bool | None = None,
        allow_unknown_layer: bool = False,
        cache: bool | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        executor: Executor | Literal["threads", "processes"] | None = None,
        on_error: Literal["record", "raise"] = "raise",
    ) -> Iterator[tuple[int, HDUList | Exception]]:
        """Cut a box round each of many targets and yield the cutouts as they come.

        Memory holds a few jobs' cutouts, however many targets there are.

        Parameters
        ----------
        table, size, bands, products, release, region, layer, pixel_scale, wcs, rotation, \
wise_grid, source, mirror, on_missing, convert_flux, allow_unknown_layer, cache, ra, dec, name, \
executor
            As for `download_cutouts`.
        on_error : {'raise', 'record'}, optional
            Whether a target that fails ends the iteration, or its error is yielded.

        Yields
        ------
        row : int
            Number of the target in ``table``; not in order.
        hdul : `~astropy.io.fits.HDUList` or Exception
            As `get_cutout` returns it, or the `~astroquery_lis.exceptions.NoCoverageError` that
            says why there is no data, or the `~astroquery_lis.exceptions.InvalidRequestError` of a
            row without a position; with ``on_error='record'`` also any other error.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.
        TransferError
            If the tables of bricks could not be had.
        LegacySurveyError
            The error of the first target that failed, unless ``on_error='record'``.

        Warns
        -----
        AstropyWarning
            Nothing of what `get_cutout` warns of: the headers and the values tell.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> from astropy.table import Table
        >>> targets = Table({'ra': [45.09, 45.13], 'dec': [0.062, 0.005]})
        >>> with sandbox.serve() as sky:
        ...     shapes = [hdul['IMAGE_R'].shape
        ...               for row, hdul in LegacySurvey.iter_cutouts(targets, 32, bands='r')]
        >>> shapes
        [(32, 32), (32, 32)]
        """
        job = self._job(survey.request.cutout_request, locals())
        return job.cutouts(executor, on_error)

    # ---- inner ----------------------------------------------------------------------------------

    def _job(
        self,
        make: Callable[..., CutoutRequest],
        arguments: Keywords,
        output: str = "fits",
        label: str = "cutouts",
    ) -> BulkJob:
        """Return what the arguments of a call ask for, everything checked."""
        # What runs jobs brings a dozen modules along, which single calls do without.
        from .bulk import BulkJob

        columns = Columns(**options_of(arguments, ("ra", "dec", "name", "id_column")))
        targets = as_targets(arguments["table"], columns)
        on_missing = arguments["on_missing"]
        names = as_sources(arguments["source"], images.sources.SOURCES)
        access = self._access(**options_of(arguments, ("mirror", "cache", "executor")))
        options = options_of(arguments, signature(make).parameters)
        whole = requests_by_row(partial(make, default_release=self.release), targets, options)
        sources = access.sources(names)
        for request in whole.templates:
            sources.first(request)  # refused here, if no source can serve it
        return BulkJob(whole, images.cutting.BulkSpec(names, on_missing), access, output, label)
