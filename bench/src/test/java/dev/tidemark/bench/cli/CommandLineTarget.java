package dev.tidemark.bench.cli;

import dev.tidemark.bench.fuzz.Watched;
import dev.tidemark.engine.source.plan.Blockers;
import dev.tidemark.engine.source.plan.ContainerFacts;
import dev.tidemark.engine.source.plan.MachineFacts;
import dev.tidemark.engine.source.plan.TrackingPlan;
import java.nio.charset.StandardCharsets;
import java.util.List;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/**
 * Sizes, times, rates and devices as they are written on a command line, and what is said of them.
 */
public final class CommandLineTarget {
  private static final List<ITypeConverter<?>> UNITS =
      List.of(new Units.Bytes(), new Units.Rate(), new Units.Time(), new Endpoint.Converter());

  private CommandLineTarget() {}

  /** Called by Jazzer. */
  public static void fuzzerTestOneInput(byte[] data) {
    if (data.length <= 4096) {
      String text = new String(data, StandardCharsets.UTF_8);
      Watched.run(data.length, () -> convert(text));
    }
  }

  private static void convert(String text) {
    for (ITypeConverter<?> unit : UNITS) {
      try {
        unit.convert(text);
      } catch (TypeConversionException e) {
        // The command shows it through Text.
      } catch (RuntimeException e) {
        throw e;
      } catch (Exception e) {
        throw new AssertionError(e);
      }
    }
    GuestDevice device;
    try {
      device = new GuestDevice.Converter().convert(text);
    } catch (TypeConversionException e) {
      return;
    }
    if (device.has() == null) {
      // Asks the host.
      return;
    }
    GuestDevice.Asked asked = device.ask(text.length() % 2 == 0, null);
    MachineFacts machine =
        new MachineFacts(
            1 << 30,
            List.of(),
            List.of(
                new ContainerFacts(
                    asked.container(), false, asked.limits(), List.of(asked.facts()))));
    String said = TrackingPlan.of(machine).toString() + Blockers.of(machine);
    if (said.isEmpty() || Text.lines(said).codePoints().anyMatch(c -> c < ' ' && c != '\n')) {
      throw new AssertionError(said);
    }
  }
}
