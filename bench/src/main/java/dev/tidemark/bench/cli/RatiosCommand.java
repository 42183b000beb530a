package dev.tidemark.bench.cli;

import dev.tidemark.bench.hot.Rivals;
import dev.tidemark.bench.ratios.Interleaved;
import dev.tidemark.bench.ratios.Outcome;
import dev.tidemark.bench.ratios.Suite;
import dev.tidemark.engine.bitmap.Bitmaps;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Measures the hot paths beside their rivals, and says which targets hold. */
@Command(
    name = "ratios",
    description = {
      "Measures the hot paths beside what one would use otherwise, both in turn.",
      "A ratio is the rival's time divided by Tidemark's. Exit status 0 if all targets hold."
    },
    mixinStandardHelpOptions = true)
final class RatiosCommand implements Callable<Integer> {
  private static final String ROW = "%-26s %-18s %-17s %12s  %-24s %12s %7s  %-13s %6s %s%n";

  @Option(names = "--json", description = "one JSON object a line")
  private boolean json;

  @Option(names = "--quick", description = "fewer rows and samples: at most a minute")
  private boolean quick;

  @Override
  public Integer call() throws InterruptedException {
    Optional<String> missing = Rivals.missing();
    if (missing.isPresent()) {
      throw new IllegalStateException(missing.get());
    }
    long start = System.nanoTime();
    List<String> scalar = Bitmaps.prove();
    long proved = System.nanoTime() - start;
    System.err.printf(
        Locale.ROOT,
        "bitmap operations: %s, proven in %d ms%s; C: %s, %d bit%n",
        Bitmaps.description(),
        proved / 1_000_000,
        scalar.isEmpty() ? "" : ", but scalar: " + scalar,
        String.join(" ", Rivals.COMPILER),
        Rivals.width());
    if (!json) {
      System.out.printf(
          Locale.ROOT,
          ROW,
          "path",
          "size",
          "input",
          "Tidemark",
          "rival",
          "rival's",
          "ratio",
          "range",
          "target",
          "holds");
    }
    List<Outcome> outcomes = new ArrayList<>();
    Interleaved measure =
        quick
            ? new Interleaved(7, 2_000_000, 150_000_000)
            : new Interleaved(15, 3_000_000, 200_000_000);
    new Suite(
            quick,
            measure,
            outcome -> {
              outcomes.add(outcome);
              print(outcome);
            })
        .run();
    long missed = outcomes.stream().filter(outcome -> !outcome.holds()).count();
    long judged = outcomes.stream().filter(outcome -> outcome.target() > 0).count();
    System.err.printf(
        Locale.ROOT, "%d rows, %d targets, %d of them missed%n", outcomes.size(), judged, missed);
    return missed == 0 ? Tidemark.DONE : Tidemark.FAILED;
  }

  private void print(Outcome outcome) {
    if (json) {
      Map<String, Object> line = new LinkedHashMap<>();
      line.put("path", outcome.path());
      line.put("size", outcome.size());
      line.put("input", outcome.input());
      line.put("tidemarkNanos", outcome.tidemarkNanos());
      line.put("rival", outcome.rival());
      line.put("rivalNanos", outcome.rivalNanos());
      line.put("ratio", outcome.ratio());
      line.put("low", outcome.low());
      line.put("high", outcome.high());
      line.put("target", outcome.target() == 0 ? null : outcome.target());
      line.put("holds", outcome.target() == 0 ? null : outcome.holds());
      line.put("allocatedBytes", outcome.allocated());
      line.put("mustNotAllocate", outcome.steady());
      System.out.println(Json.of(line));
    } else {
      System.out.printf(
          Locale.ROOT,
          ROW,
          outcome.path(),
          outcome.size(),
          outcome.input(),
          time(outcome.tidemarkNanos()),
          outcome.rival(),
          time(outcome.rivalNanos()),
          ratio(outcome.ratio()),
          ratio(outcome.low()) + " - " + ratio(outcome.high()),
          outcome.target() == 0 ? "" : ratio(outcome.target()),
          verdict(outcome));
    }
    System.out.flush();
  }

  private static String verdict(Outcome outcome) {
    if (outcome.steady() && outcome.allocated() > 0) {
      return String.format(Locale.ROOT, "NO: allocates %.1f bytes", outcome.allocated());
    }
    return outcome.target() == 0 ? "" : outcome.holds() ? "yes" : "NO";
  }

  private static String ratio(double ratio) {
    return String.format(
        Locale.ROOT, ratio >= 99.5 ? "%.0f" : ratio >= 9.95 ? "%.1f" : "%.2f", ratio);
  }

  private static String time(double nanos) {
    if (nanos < 1e3) {
      return String.format(Locale.ROOT, "%.1f ns", nanos);
    }
    return nanos < 1e6
        ? String.format(Locale.ROOT, "%.2f µs", nanos / 1e3)
        : String.format(Locale.ROOT, "%.2f ms", nanos / 1e6);
  }
}
