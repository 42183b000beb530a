package dev.tidemark.bench.lab;

import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.engine.reporting.ReportEntry;
import org.junit.platform.launcher.Launcher;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.TagFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/**
 * Runs inside the lab: the tests of one tag, with a report that {@link LabReport} reads. The report
 * grows event by event, so that what a crashed lab was doing is in it.
 */
final class LabRunner implements TestExecutionListener {
  private final DataOutputStream report;

  private LabRunner(DataOutputStream report) {
    this.report = report;
  }

  /**
   * @param args the tag, the report file, and a file of test classes' names, beside which there
   *     will be a folder for each class that some run has taken
   */
  public static void main(String[] args) throws IOException {
    Path classes = Path.of(args[2]);
    Launcher launcher = LauncherFactory.create();
    try (DataOutputStream report =
        new DataOutputStream(
            new BufferedOutputStream(Files.newOutputStream(Path.of(args[1])), 1 << 16))) {
      LabRunner runner = new LabRunner(report);
      for (String name : Files.readAllLines(classes)) {
        if (isOurs(classes.resolveSibling(name))) {
          LauncherDiscoveryRequest request =
              LauncherDiscoveryRequestBuilder.request()
                  .selectors(DiscoverySelectors.selectClass(name))
                  .filters(TagFilter.includeTags(args[0]))
                  .build();
          launcher.execute(request, runner);
        }
      }
      report.writeByte(LabReport.DONE);
    }
    // Threads that a failed test left behind must not keep the lab up.
    Runtime.getRuntime().halt(0);
  }

  private static boolean isOurs(Path claim) throws IOException {
    try {
      Files.createDirectory(claim);
      return true;
    } catch (FileAlreadyExistsException e) {
      return false;
    }
  }

  @Override
  public void executionStarted(TestIdentifier test) {
    started(test);
  }

  private void started(TestIdentifier test) {
    if (test.isTest()) {
      System.out.println("lab: " + test.getUniqueId());
    }
    write(
        LabReport.STARTED,
        test.getUniqueId(),
        test.getParentId().orElse(""),
        test.isTest() ? "test" : "container",
        test.getDisplayName());
  }

  @Override
  public void executionSkipped(TestIdentifier test, String reason) {
    started(test);
    write(LabReport.FINISHED, test.getUniqueId(), "ABORTED", reason);
  }

  @Override
  public void executionFinished(TestIdentifier test, TestExecutionResult result) {
    write(
        LabReport.FINISHED,
        test.getUniqueId(),
        result.getStatus().name(),
        result.getThrowable().map(LabRunner::describe).orElse(""));
  }

  @Override
  public void reportingEntryPublished(TestIdentifier test, ReportEntry entry) {
    System.out.println("lab: " + entry.getKeyValuePairs());
  }

  private static String describe(Throwable failure) {
    StringBuilder text = new StringBuilder();
    for (Throwable at = failure; at != null; at = at.getCause()) {
      text.append(text.isEmpty() ? "" : "caused by ").append(at).append('\n');
      for (StackTraceElement element : at.getStackTrace()) {
        if (element.getClassName().startsWith("org.junit.platform.")) {
          break;
        }
        text.append("    at ").append(element).append('\n');
      }
    }
    return text.toString();
  }

  private synchronized void write(int event, String... fields) {
    try {
      report.writeByte(event);
      for (String field : fields) {
        // writeUTF takes 65,535 bytes, and a character may need three.
        report.writeUTF(field.length() > 20_000 ? field.substring(0, 20_000) : field);
      }
      report.flush();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
