package dev.tidemark.bench.duel;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import dev.tidemark.bench.Main;
import dev.tidemark.bench.hot.OtherJvm;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.concurrent.TimeUnit;

/** The command {@code migrate --json} in a new process, which starts its receiver itself. */
final class TidemarkContestant implements Contestant {
  private static final String OUTPUT = "migrate.json";
  private static final String ERRORS = "migrate.errors";

  private final Match match;
  private final Scratch scratch;

  TidemarkContestant(Match match, Scratch scratch) {
    this.match = match;
    this.scratch = scratch;
  }

  @Override
  public String name() {
    return "Tidemark";
  }

  @Override
  public Sample migrate() throws InterruptedException {
    String rate = match.pagesPerSecond() == 0 ? "max" : Long.toString(match.pagesPerSecond());
    double cpu = ChildrenCpu.seconds();
    long begin = System.nanoTime();
    int status =
        run(
            OtherJvm.command(
                    Main.class,
                    "migrate",
                    "--json",
                    "--ram",
                    Long.toString(match.ramBytes()),
                    "--dirty-rate",
                    rate)
                .redirectOutput(scratch.file(OUTPUT).toFile())
                .redirectError(scratch.file(ERRORS).toFile()));
    double seconds = (System.nanoTime() - begin) / 1e9;
    if (status != 0) {
      throw new IllegalStateException(
          "migrate failed: " + scratch.read(OUTPUT) + scratch.read(ERRORS));
    }
    return sample(scratch.read(OUTPUT), match.ramBytes())
        .put(Measure.WHOLE, seconds)
        .put(Measure.WHOLE_CPU, ChildrenCpu.seconds() - cpu);
  }

  private int run(ProcessBuilder command) throws InterruptedException {
    Process process;
    try {
      process = command.start();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    // It takes its receiver along.
    Thread end = new Thread(process::destroy, "end of migrate");
    Runtime.getRuntime().addShutdownHook(end);
    try {
      if (!process.waitFor(Match.LIMIT_MINUTES, TimeUnit.MINUTES)) {
        throw new IllegalStateException("migrate did not end: " + scratch.read(ERRORS));
      }
      return process.exitValue();
    } finally {
      process.destroy();
      process.onExit().join();
      try {
        Runtime.getRuntime().removeShutdownHook(end);
      } catch (IllegalStateException e) {
        // This JVM ends.
      }
    }
  }

  /**
   * What a migration says of itself.
   *
   * @param line one object; what is not in it is not known
   */
  static Sample sample(String line, long ramBytes) {
    JsonObject said;
    try {
      said = JsonParser.parseString(line).getAsJsonObject();
    } catch (JsonParseException | IllegalStateException e) {
      throw new IllegalStateException("migrate --json says: " + line, e);
    }
    return new Sample()
        .put(Measure.TOTAL, number(said, "totalMillis"))
        .put(Measure.DOWNTIME, number(said, "downtimeMillis"))
        .put(Measure.DIGESTS, number(said, "digestMillis"))
        .put(Measure.FIRST_PAGE, number(said, "firstPageMillis"))
        .put(Measure.BYTES, number(said, "bytesSent") / 1e6)
        .put(Measure.ZERO_PAGES, 100 * number(said, "zeroPages") / number(said, "pagesSent"))
        .put(Measure.CPU, number(said, "cpuMillis") * 1e6 / ramBytes)
        .put(Measure.PAGES_BEFORE, number(said, "guestPagesPerSecondBefore"))
        .put(Measure.PAGES_DURING, number(said, "guestPagesPerSecond"))
        .put(Measure.PAGES_AFTER, number(said, "guestPagesPerSecondAfter"))
        .put(Measure.STALL, number(said, "guestLongestStallMillis"));
  }

  private static double number(JsonObject of, String name) {
    JsonElement value = of.get(name);
    return value == null || value.isJsonNull() ? Double.NaN : value.getAsDouble();
  }
}
