package dev.tidemark.bench.ratios;

import dev.tidemark.bench.hot.BitmapInput;
import dev.tidemark.bench.hot.HarvestPath;
import dev.tidemark.bench.hot.MergePath;
import dev.tidemark.bench.ratios.Contest.Side;
import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.ffm.Mapping;
import java.io.IOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.LongSupplier;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.parsers.ParserConfigurationException;
import org.apache.batik.svggen.SVGGeneratorContext;
import org.apache.batik.svggen.SVGGraphics2D;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.style.Styler.LegendPosition;

/** Cost against size, density and alignment, as line charts: a cliff is a step in one of them. */
public final class Plots {
  private static final int WIDTH = 720;
  private static final int HEIGHT = 400;

  /** Odd, as the middle one counts; what disturbs the machine once is in one of them. */
  private static final int SWEEPS = 3;

  private static final BitmapInput ONE_PERCENT = new BitmapInput(0.01, false);

  private final Path folder;
  private final Consumer<String> report;
  private final Interleaved measure;
  private final int sweeps;

  /** One line of a chart. */
  private record Line(List<Double> x, List<Double> y) {
    Line() {
      this(new ArrayList<>(), new ArrayList<>());
    }
  }

  /** Measures all points of a chart, in the same order each time. */
  @FunctionalInterface
  private interface Sweep {
    void into(Map<String, Line> lines);
  }

  /**
   * @param folder where the files go
   * @param report told of each file
   */
  public Plots(Path folder, Consumer<String> report) {
    this(folder, report, new Interleaved(7, 1_000_000, 60_000_000), SWEEPS);
  }

  Plots(Path folder, Consumer<String> report, Interleaved measure, int sweeps) {
    this.folder = folder;
    this.report = report;
    this.measure = measure;
    this.sweeps = sweeps;
  }

  /** Measures and draws all. */
  public void draw() throws IOException {
    // Without a display.
    System.setProperty("java.awt.headless", "true");
    mergeBySize();
    mergeByShift();
    mergeByLength();
    harvestByDensity();
    cardinalityBySize();
  }

  private double nanos(Runnable prepare, LongSupplier job) {
    Side side = new Side(prepare, () -> job.getAsLong() & 0, 1);
    return measure.measure(Contest.limit("", "", "", "", 1, side)).tidemarkNanos();
  }

  /** The median of each point in several sweeps over all of them. */
  private Map<String, Line> measured(Sweep sweep) {
    List<Map<String, Line>> all = new ArrayList<>();
    for (int i = 0; i < sweeps; i++) {
      Map<String, Line> lines = new LinkedHashMap<>();
      sweep.into(lines);
      all.add(lines);
    }
    Map<String, Line> medians = new LinkedHashMap<>();
    all.getFirst()
        .forEach(
            (name, first) -> {
              for (int point = 0; point < first.x().size(); point++) {
                int at = point;
                double[] found =
                    all.stream()
                        .mapToDouble(lines -> lines.get(name).y().get(at))
                        .sorted()
                        .toArray();
                add(medians, name, first.x().get(at), found[sweeps / 2]);
              }
            });
    return medians;
  }

  private static void add(Map<String, Line> lines, String name, double x, double y) {
    Line line = lines.computeIfAbsent(name, _ -> new Line());
    line.x().add(x);
    line.y().add(y);
  }

  private void mergeBySize() throws IOException {
    draw(
        "merge-size",
        "Merge, 1 % dirty",
        "bytes of bitmap",
        "ns",
        true,
        true,
        this::mergeBySizeOnce);
  }

  private void mergeBySizeOnce(Map<String, Line> lines) {
    for (long bytes = 4 << 10; bytes <= 64 << 20; bytes *= 2) {
      try (MergePath path = new MergePath(bytes, ONE_PERCENT)) {
        add(lines, "merge", bytes, nanos(null, path::orCount));
        add(lines, "merge and clear", bytes, nanos(path::refill, path::orCountClear));
        add(lines, "C, plain loop", bytes, nanos(null, path::plainOrCount));
        add(lines, "copying", bytes, nanos(null, path::limitCopy));
        add(lines, "scalar twin", bytes, nanos(null, path::scalarOrCount));
      }
    }
  }

  private void mergeByShift() throws IOException {
    draw(
        "merge-shift",
        "Merge of 512 KiB",
        "bit offset of source",
        "µs",
        false,
        false,
        this::mergeByShiftOnce);
  }

  private void mergeByShiftOnce(Map<String, Line> lines) {
    try (MergePath path = new MergePath(512 << 10, ONE_PERCENT)) {
      for (int shift = 0; shift < 64; shift++) {
        int by = shift;
        add(lines, "merge", shift, nanos(null, () -> path.orCountShifted(by)) / 1000);
      }
    }
  }

  /**
   * Odd lengths and bases, over the ends of pages: one page of bitmap and a little more or less.
   */
  private void mergeByLength() throws IOException {
    draw(
        "merge-length",
        "Merge of odd lengths",
        "bytes of bitmap",
        "ns",
        false,
        false,
        this::mergeByLengthOnce);
  }

  private void mergeByLengthOnce(Map<String, Line> lines) {
    BitmapOps ops = Bitmaps.ops();
    try (Mapping src = Mapping.guarded(16 << 10);
        Mapping dst = Mapping.guarded(16 << 10)) {
      ONE_PERCENT.fill(src.segment(), 0);
      for (long bytes = 2048; bytes <= 10240; bytes += 136) {
        long bits = bytes * 8 + 5;
        for (int base : new int[] {0, 8, 1}) {
          String name = base == 0 ? "aligned" : base == 8 ? "a byte on" : "a bit on, to a bit on";
          add(
              lines,
              name,
              bytes,
              nanos(null, () -> ops.orCount(dst.segment(), base, src.segment(), base, bits)));
        }
      }
    }
  }

  private void harvestByDensity() throws IOException {
    draw(
        "harvest-density",
        "Harvest and commit of 512 KiB",
        "% dirty",
        "µs",
        true,
        true,
        this::harvestByDensityOnce);
  }

  private void harvestByDensityOnce(Map<String, Line> lines) {
    double[] densities = {
      0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1
    };
    for (boolean clustered : new boolean[] {false, true}) {
      String how = clustered ? ", clustered" : ", scattered";
      for (double density : densities) {
        try (HarvestPath path = new HarvestPath(512 << 10, new BitmapInput(density, clustered))) {
          double percent = density * 100;
          add(lines, "Tidemark" + how, percent, nanos(path::refill, path::tidemark) / 1000);
          add(lines, "bit by bit in C" + how, percent, nanos(path::refill, path::bitByBit) / 1000);
        }
      }
    }
  }

  /** Over 2 GiB of bitmap, where an int would end. */
  private void cardinalityBySize() throws IOException {
    draw(
        "cardinality-size",
        "Cardinality past 2 GiB",
        "GiB of bitmap",
        "ms",
        false,
        false,
        this::cardinalityBySizeOnce);
  }

  private void cardinalityBySizeOnce(Map<String, Line> lines) {
    BitmapOps ops = Bitmaps.ops();
    long most = (3L << 30) - 128;
    try (Mapping map = Mapping.anonymous(most)) {
      for (long at = 0; at < most; at += 1 << 20) {
        map.segment().asSlice(at, Math.min(1 << 20, most - at)).fill((byte) 0x11);
      }
      for (long bytes = 256L << 20; bytes < most; bytes += 256L << 20) {
        for (long near : new long[] {-64, 72}) {
          long bits = (bytes + near) * 8;
          double gib = (double) (bytes + near) / (1L << 30);
          add(
              lines,
              "cardinality",
              gib,
              nanos(null, () -> ops.cardinality(map.segment(), 0, bits)) / 1e6);
        }
      }
    }
  }

  private void draw(
      String file, String title, String x, String y, boolean logX, boolean logY, Sweep sweep)
      throws IOException {
    Map<String, Line> lines = measured(sweep);
    XYChart chart =
        new XYChartBuilder()
            .width(WIDTH)
            .height(HEIGHT)
            .title(title)
            .xAxisTitle(x)
            .yAxisTitle(y)
            .build();
    chart.getStyler().setXAxisLogarithmic(logX).setYAxisLogarithmic(logY);
    chart.getStyler().setLegendPosition(LegendPosition.OutsideE).setMarkerSize(4);
    if (!logY) {
      // A step looks as high as it is only over the whole height.
      chart.getStyler().setYAxisMin(0.0);
    }
    lines.forEach((name, line) -> chart.addSeries(name, line.x(), line.y()));
    SVGGeneratorContext context;
    try {
      context =
          SVGGeneratorContext.createDefault(
              DocumentBuilderFactory.newInstance()
                  .newDocumentBuilder()
                  .getDOMImplementation()
                  .createDocument("http://www.w3.org/2000/svg", "svg", null));
    } catch (ParserConfigurationException e) {
      throw new IllegalStateException(e);
    }
    context.setPrecision(1);
    SVGGraphics2D graphics = new SVGGraphics2D(context, false);
    chart.paint(graphics, WIDTH, HEIGHT);
    Path path = folder.resolve(file + ".svg");
    try (Writer writer = Files.newBufferedWriter(path)) {
      graphics.stream(writer, true);
    }
    report.accept(path.toString());
  }
}
