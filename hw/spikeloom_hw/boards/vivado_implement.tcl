# Synthesis, placement, routing; a bitstream only if it holds the clock.

make_wrapper -files [get_files $design.bd] -top -import
set_property top ${design}_wrapper [current_fileset]
update_compile_order -fileset sources_1
set_property STEPS.PHYS_OPT_DESIGN.IS_ENABLED true [get_runs impl_1]

proc finish {run step} {
    wait_on_run $run
    set progress [get_property PROGRESS [get_runs $run]]
    if {$progress ne "100%"} {
        error "Vivado stopped in $step ($progress); the log is runme.log of run $run."
    }
}

launch_runs impl_1 -to_step route_design -jobs $jobs
finish impl_1 route_design
open_run impl_1
report_timing_summary -file [file join $report_dir timing.rpt]
report_utilization -file [file join $report_dir utilization.rpt]
report_utilization -hierarchical -file [file join $report_dir hierarchy.rpt]
report_power -file [file join $report_dir power.rpt]

set setup [get_property STATS.WNS [get_runs impl_1]]
set hold [get_property STATS.WHS [get_runs impl_1]]
set pulse [get_property STATS.TPWS [get_runs impl_1]]
set result [open [file join $report_dir timing.txt] w]
puts $result "setup $setup\nhold $hold\npulse $pulse\nclock_mhz $clock_mhz\nvivado [version -short]"
close $result
if {$setup < 0 || $hold < 0 || $pulse < 0} {
    error "The routed design misses its clock of $clock_mhz MHz (slack: setup $setup ns, hold $hold ns, pulse $pulse ns): no bitstream."
}
close_design

launch_runs impl_1 -to_step write_bitstream -jobs $jobs
finish impl_1 write_bitstream
set built [file join $work_dir project]
file copy -force [file join $built $project.runs impl_1 ${design}_wrapper.bit] $bit_file
file copy -force [file join $built $project.gen sources_1 bd $design hw_handoff $design.hwh] $hwh_file
