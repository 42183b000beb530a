package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** Whatever is typed is taken or refused in words, never in an exception's. */
class UsageFuzzTest {
  private static final int TIMES = 50_000 * Integer.getInteger("tidemark.effort", 1);

  private static final List<ITypeConverter<?>> CONVERTERS =
      List.of(
          new GuestDevice.Converter(),
          new Endpoint.Converter(),
          new Units.Bytes(),
          new Units.Rate(),
          new Units.Time());

  private static final String[] PIECES = {
    ",",
    "=",
    "+",
    ":",
    "-",
    " ",
    "",
    "0",
    "1",
    "48",
    "63",
    "64",
    "65535",
    "70000",
    "9223372036854775807",
    "99999999999999999999",
    "1e9",
    ".",
    "B",
    "iB",
    "KiB",
    "MiB",
    "G",
    "T",
    "TiB",
    "/s",
    "ms",
    "s",
    "m",
    "h",
    "max",
    "MAX",
    "vf0",
    "0000:3b:00.2",
    "has",
    "has=",
    "migration=",
    "device-tracking=",
    "on",
    "off",
    "auto",
    "stop_copy",
    "p2p",
    "dma_log",
    "iommu_tracking",
    "STOP_COPY",
    "tcp:",
    "unix:",
    "/",
    "127.0.0.1",
    "/tmp/x",
    "\0",
    "\n",
    "\033[2J",
    "\u202e",
    "\u0661",
    "é",
    "😀",
    "\ud800",
    "null",
    "%s",
    "%d"
  };

  private static String text(Random random, int most) {
    StringBuilder text = new StringBuilder();
    for (int n = random.nextInt(most); n >= 0; n--) {
      text.append(PIECES[random.nextInt(PIECES.length)]);
    }
    return text.toString();
  }

  @Test
  void everyConverterTakesOrRefusesInWords() throws Exception {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    Random random = new Random(seed);
    for (int i = 0; i < TIMES; i++) {
      String text = text(random, 8);
      for (ITypeConverter<?> converter : CONVERTERS) {
        try {
          Object value = converter.convert(text);
          if (value instanceof GuestDevice device) {
            assertFalse(device.name().isBlank(), text);
            assertEquals(Text.line(device.name()), device.name(), text);
          } else if (value instanceof Long number) {
            assertTrue(number >= 0, text);
          }
        } catch (TypeConversionException e) {
          assertFalse(e.getMessage().contains("xception"), e.getMessage());
        } catch (RuntimeException e) {
          throw new AssertionError(
              "-Dtidemark.seed=" + seed + ": " + converter.getClass() + " of '" + text + "'", e);
        }
      }
    }
  }

  @Test
  void explainEndsWithAStatusAndInWords() {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    Random random = new Random(seed);
    String[] rams = {"0", "1", "1G", "9T", "16777216T", "8388607T", "9223372036854775807"};
    for (int i = 0; i < TIMES / 100; i++) {
      List<String> arguments =
          new ArrayList<>(List.of("explain", "--ram", rams[random.nextInt(rams.length)]));
      if (random.nextBoolean()) {
        arguments.add("--viommu=" + (random.nextInt(140) - 70));
      }
      if (random.nextBoolean()) {
        arguments.add("--type1");
      }
      if (random.nextInt(4) == 0) {
        arguments.add("--unreadable=" + text(random, 4));
      }
      if (random.nextInt(4) == 0) {
        arguments.add("--json");
      }
      for (int n = random.nextInt(4); n > 0; n--) {
        arguments.add(
            "--device=" + (random.nextBoolean() ? "vf" + n + ",has=stop_copy" : text(random, 6)));
      }
      InProcess.Printed printed = InProcess.print(arguments.toArray(String[]::new));
      String what = "-Dtidemark.seed=" + seed + ": " + arguments + ": " + printed;
      assertTrue(Set.of(0, 1, 2).contains(printed.status()), what);
      assertFalse(
          printed.errors().contains("xception") || printed.errors().contains("\tat "), what);
      // 1 is for a guest that cannot be migrated, and says so on the standard output.
      assertEquals(printed.status() == 2, !printed.errors().isEmpty(), what);
      String all = (printed.output() + printed.errors()).replace("\n", "");
      assertEquals(Text.escaped(all), all, what);
    }
  }
}
