package dev.tidemark.bench.cli;

import dev.tidemark.bench.duel.Duel;
import dev.tidemark.bench.duel.Match;
import dev.tidemark.bench.duel.Measure;
import dev.tidemark.bench.duel.Row;
import dev.tidemark.bench.duel.Sample;
import dev.tidemark.bench.duel.Spread;
import dev.tidemark.bench.guest.BootImage;
import dev.tidemark.bench.guest.KvmGuest;
import dev.tidemark.bench.qemu.QemuBinary;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** Measures whole migrations beside QEMU's. */
@Command(
    name = "duel",
    description = {
      "Migrates a running guest seven times with Tidemark and with QEMU, in turn, each time between"
          + " new processes, and prints medians and quartiles.",
      "A ratio is Tidemark's value divided by QEMU's. Exit status 0 if all could be measured."
    },
    mixinStandardHelpOptions = true,
    showDefaultValues = true)
final class DuelCommand implements Callable<Integer> {
  private static final int SAMPLES = 7;
  private static final String ROW = "%-24s %-8s %9s %-17s %-17s %9s %-17s %7s  %s%n";

  @Spec private CommandSpec spec;

  @Option(
      names = "--qemu",
      paramLabel = "PATH",
      description =
          "a qemu-system-x86_64; else the newest that .ci/qemus unpacked, or the machine's own")
  private Path path;

  @Option(
      names = "--ram",
      defaultValue = "1GiB",
      paramLabel = "SIZE",
      converter = Units.Bytes.class,
      description = "the guest's memory")
  private long ram;

  @Option(
      names = "--dirty-rate",
      defaultValue = "10000",
      paramLabel = "PAGES/s",
      converter = Units.Rate.class,
      description = "how fast the guest writes, above 0; max: as fast as it can")
  private long rate;

  @Option(
      names = "--channels",
      defaultValue = "1,2,4",
      split = ",",
      paramLabel = "N",
      description = "QEMU's connections, a rival for each: 1 is its one stream, more are multifd")
  private List<Integer> channels;

  @Option(
      names = "--busy",
      defaultValue = "0",
      paramLabel = "N",
      description = "so many processes spin beside the migrations")
  private int busy;

  @Option(names = "--json", description = "one JSON object a line")
  private boolean json;

  @Override
  public Integer call() throws InterruptedException {
    if (busy < 0 || channels.stream().anyMatch(count -> count < 1 || count > 255)) {
      throw new ParameterException(
          spec.commandLine(), "--busy is 0 or more, --channels are from 1 to 255");
    }
    try {
      BootImage.of(ram, rate, 1);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), e.getMessage());
    }
    // Both ends are on this host.
    HostMemory.require(ram > Long.MAX_VALUE / 2 ? ram : 2 * ram);
    QemuBinary qemu =
        Optional.ofNullable(path)
            .map(QemuBinary::of)
            .or(QemuBinary::newest)
            .orElseThrow(() -> new IllegalStateException(QemuBinary.missing()));
    System.err.printf(
        Locale.ROOT,
        "QEMU %s of %s; %s, %s pages/s, %d processes spin beside it%n",
        qemu.version(),
        qemu.path(),
        Units.size(ram),
        rate == 0 ? "max" : Long.toString(rate),
        busy);
    System.err.printf(
        Locale.ROOT,
        "equal: RAM, its contents (of the guest's pages 1 in 16 is zero), pace, limit of downtime"
            + " (300 ms), no limit of bandwidth%n"
            + "not equal: QEMU's guest is emulated, Tidemark's %s; after the migration Tidemark's"
            + " guest checks all its memory as fast as it can, QEMU's keeps its pace%n",
        KvmGuest.missing().isEmpty() ? "runs in KVM" : "is a thread");
    List<Row> rows = new Duel(qemu, new Match(ram, rate), channels, busy).run(SAMPLES, this::show);
    if (!json) {
      System.out.printf(
          Locale.ROOT,
          ROW,
          "measure",
          "unit",
          "Tidemark",
          "quartiles",
          "rival",
          "rival's",
          "quartiles",
          "ratio",
          "range");
    }
    rows.forEach(row -> print(row, qemu));
    return Tidemark.DONE;
  }

  private void show(String name, Sample sample) {
    System.err.printf(
        Locale.ROOT,
        "%-17s total %s ms, downtime %s ms%n",
        name,
        number(sample.get(Measure.TOTAL).orElse(Double.NaN)),
        number(sample.get(Measure.DOWNTIME).orElse(Double.NaN)));
  }

  private void print(Row row, QemuBinary qemu) {
    if (json) {
      Map<String, Object> line = new LinkedHashMap<>();
      line.put("measure", row.measure().name().toLowerCase(Locale.ROOT));
      line.put("unit", row.measure().unit());
      line.put("ramBytes", ram);
      line.put("pagesPerSecond", rate == 0 ? null : rate);
      line.put("busy", busy);
      put(line, "tidemark", row.tidemark());
      line.put("rival", row.rival());
      line.put("version", qemu.version());
      put(line, "rivals", row.others());
      put(line, "ratio", row.ratio());
      System.out.println(Json.of(line));
    } else {
      System.out.printf(
          Locale.ROOT,
          ROW,
          row.measure().title(),
          row.measure().unit(),
          median(row.tidemark()),
          range(row.tidemark()),
          row.rival(),
          median(row.others()),
          range(row.others()),
          median(row.ratio()),
          range(row.ratio()));
    }
    System.out.flush();
  }

  private static void put(Map<String, Object> line, String name, Optional<Spread> spread) {
    line.put(name, spread.map(Spread::median).orElse(null));
    line.put(name + "Low", spread.map(Spread::low).orElse(null));
    line.put(name + "High", spread.map(Spread::high).orElse(null));
  }

  private static String median(Optional<Spread> spread) {
    return spread.map(known -> number(known.median())).orElse("-");
  }

  private static String range(Optional<Spread> spread) {
    return spread.map(known -> number(known.low()) + " - " + number(known.high())).orElse("");
  }

  /** Three digits or more. */
  private static String number(double value) {
    if (Double.isNaN(value)) {
      return "-";
    }
    return String.format(
        Locale.ROOT, value >= 99.5 ? "%.0f" : value >= 9.95 ? "%.1f" : "%.2f", value);
  }
}
