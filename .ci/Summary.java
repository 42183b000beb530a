import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.Element;

/**
 * Sums up what Surefire reported below a root since a point in time: what failed, what was skipped
 * and why, and, as the last line, how many of each. Runs on Java 17 too.
 */
public final class Summary {
  private int passed;
  private int failed;
  private int skipped;
  private final List<String> failures = new ArrayList<>();
  private final Map<String, List<String>> reasons = new TreeMap<>();

  public static void main(String[] args) throws Exception {
    Path root = Path.of(args[0]);
    Instant since = Instant.parse(args[1]);
    Summary summary = new Summary();
    for (Path report : reports(root, since)) {
      summary.read(report);
    }
    summary.print();
  }

  private static List<Path> reports(Path root, Instant since) throws IOException {
    List<Path> reports = new ArrayList<>();
    try (var modules = Files.newDirectoryStream(root)) {
      for (Path module : modules) {
        Path folder = module.resolve("target/surefire-reports");
        if (!Files.isDirectory(folder)) {
          continue;
        }
        try (var files = Files.newDirectoryStream(folder, "TEST-*.xml")) {
          for (Path file : files) {
            // A report of a test that no longer exists stays behind until the next clean.
            if (!Files.getLastModifiedTime(file).toInstant().isBefore(since)) {
              reports.add(file);
            }
          }
        }
      }
    }
    reports.sort(null);
    return reports;
  }

  private void read(Path report) throws Exception {
    File file = report.toFile();
    var cases =
        DocumentBuilderFactory.newInstance()
            .newDocumentBuilder()
            .parse(file)
            .getElementsByTagName("testcase");
    for (int i = 0; i < cases.getLength(); i++) {
      Element test = (Element) cases.item(i);
      String type = test.getAttribute("classname");
      String name = type.substring(type.lastIndexOf('.') + 1) + "." + test.getAttribute("name");
      String broken = child(test, "failure", child(test, "error", null));
      String left = child(test, "skipped", null);
      if (broken != null) {
        failed++;
        failures.add(name + ": " + broken);
      } else if (left != null) {
        skipped++;
        reasons.computeIfAbsent(left, reason -> new ArrayList<>()).add(name);
      } else {
        passed++;
      }
    }
  }

  /** The first line of a child's message, or the fallback if there is no such child. */
  private static String child(Element test, String tag, String fallback) {
    var children = test.getElementsByTagName(tag);
    if (children.getLength() == 0) {
      return fallback;
    }
    Element child = (Element) children.item(0);
    String message = child.getAttribute("message");
    if (message.isEmpty()) {
      message = child.getTextContent();
    }
    return message
        .strip()
        .lines()
        .findFirst()
        .orElse("no reason given")
        .replaceFirst("^[\\w.$]+(Exception|Error): ", "")
        .replaceFirst("^Assumption failed: ", "");
  }

  private void print() {
    failures.forEach(failure -> System.out.println("FAILED   " + failure));
    reasons.forEach(
        (reason, tests) -> {
          System.out.println("SKIPPED  " + reason);
          tests.forEach(test -> System.out.println("           " + test));
        });
    System.out.println(passed + " passed, " + failed + " failed, " + skipped + " skipped");
  }
}
